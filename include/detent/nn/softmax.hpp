// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// exp(x) / sum(exp(x)) of each row.
template <class Scalar> basic_matrix<Scalar> softmax(basic_matrix<Scalar> x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t r = begin; r < end; ++r) {
            auto row = x.row(r).array();
            row = (row - row.maxCoeff()).exp();
            row *= Scalar(1) / row.sum();
        }
    });
    return x;
}

/// Columns of a long row that are summed in its own type before they go to a double: short for a float sum, and in the
/// first-level cache between their maximum and their sum.
inline constexpr index_t columns_per_sum = 1024;

/// log(sum(exp(x))) of row `r`, safe for any finite entries.
template <class X> double log_sum_exp(Eigen::MatrixBase<X> const& rows, index_t r) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(rows);
    Scalar highest = std::numeric_limits<Scalar>::lowest();
    double sum = 0; // of exp(x - highest) up to here
    for (index_t c = 0; c < x.cols(); c += columns_per_sum) {
        auto const part = x.row(r).segment(c, std::min(columns_per_sum, x.cols() - c)).array();
        Scalar const before = std::exchange(highest, std::max(highest, part.maxCoeff()));
        sum *= std::exp(static_cast<double>(before) - static_cast<double>(highest));
        sum += static_cast<double>((part - highest).exp().sum());
    }
    return static_cast<double>(highest) + std::log(sum);
}

/// The cross entropy, in nats, of every token given the logits of the row before it, summed over all tokens but the
/// first of each sequence. `outputs` are the logits, (token, vocabulary), its rows `sequences` of equal length;
/// `tokens` are the ids of the same rows, each inside the vocabulary.
template <class X>
double next_token_loss(Eigen::MatrixBase<X> const& outputs, std::span<token_id const> tokens, index_t sequences = 1,
                       executor_ref executor = {}) {
    basic_matrix_view<scalar_of<X>> const logits(outputs);
    expect_valid(logits.rows() == static_cast<index_t>(tokens.size()), "tokens", "are not as many as rows of logits");
    index_t const length = token_rows{.sequences = sequences}.length(logits.rows());
    std::vector<double> losses(tokens.size()); // one per row, so that the order of the sum is fixed
    executor.for_pieces(logits.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            if ((t + 1) % length != 0) {
                auto const next = static_cast<index_t>(tokens[static_cast<std::size_t>(t + 1)]);
                expect_valid(next >= 0 && next < logits.cols(), "tokens", "are not all in the vocabulary");
                losses[static_cast<std::size_t>(t)] = log_sum_exp(logits, t) - static_cast<double>(logits(t, next));
            }
        }
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

/// The gradient of `factor` times `next_token_loss` with respect to the logits: factor * (softmax - one hot), and 0 for
/// the last token of each sequence; the mean over tokens has the factor 1 / (sequences * (length - 1)). Takes the
/// logits, (token, vocabulary), by value so that the result can reuse them.
template <class Scalar>
basic_matrix<Scalar> next_token_gradient(basic_matrix<Scalar> logits, std::span<token_id const> tokens,
                                         index_t sequences = 1, double factor = 1, executor_ref executor = {}) {
    expect_valid(logits.rows() == static_cast<index_t>(tokens.size()), "tokens", "are not as many as rows of logits");
    index_t const length = token_rows{.sequences = sequences}.length(logits.rows());
    executor.for_pieces(logits.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            auto row = logits.row(t).array();
            if ((t + 1) % length == 0) {
                row = Scalar(0);
                continue;
            }
            auto const next = static_cast<index_t>(tokens[static_cast<std::size_t>(t + 1)]);
            expect_valid(next >= 0 && next < logits.cols(), "tokens", "are not all in the vocabulary");
            Scalar const highest = row.maxCoeff();
            double sum = 0; // of exp(logit - highest)
            for (index_t c = 0; c < row.size(); c += columns_per_sum) {
                auto part = row.segment(c, std::min(columns_per_sum, row.size() - c));
                part = (part - highest).exp();
                sum += static_cast<double>(part.sum());
            }
            row *= static_cast<Scalar>(factor / sum);
            row(next) -= static_cast<Scalar>(factor);
        }
    });
    return logits;
}

} // namespace detent::inline DETENT_ABI::nn
