// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// exp(x) / sum(exp(x)) of each row.
inline matrix softmax(matrix x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t r = begin; r < end; ++r) {
            auto row = x.row(r).array();
            row = (row - row.maxCoeff()).exp();
            row *= 1.0F / row.sum();
        }
    });
    return x;
}

/// log(sum(exp(x))) of row `r`, safe for any finite entries.
inline double log_sum_exp(matrix_view x, index_t r) {
    constexpr index_t run = 1024; // short for a float sum; in the first-level cache between its maximum and its sum
    float highest = std::numeric_limits<float>::lowest();
    double sum = 0; // of exp(x - highest) up to here
    for (index_t c = 0; c < x.cols(); c += run) {
        auto const part = x.row(r).segment(c, std::min(run, x.cols() - c)).array();
        float const before = std::exchange(highest, std::max(highest, part.maxCoeff()));
        sum *= std::exp(static_cast<double>(before) - static_cast<double>(highest));
        sum += static_cast<double>((part - highest).exp().sum());
    }
    return static_cast<double>(highest) + std::log(sum);
}

/// The cross entropy, in nats, of every token given the logits of the row before it, summed over all tokens but the
/// first of each sequence. `logits` is (token, vocabulary), its rows `sequences` of equal length; `tokens` are the ids
/// of the same rows, each inside the vocabulary.
inline double next_token_loss(matrix_view logits, std::span<token_id const> tokens, index_t sequences = 1,
                              executor_ref executor = {}) {
    DETENT_EXPECTS(logits.rows() == static_cast<index_t>(tokens.size()));
    index_t const length = token_rows{.sequences = sequences}.length(logits.rows());
    std::vector<double> losses(tokens.size()); // one per row, so that the order of the sum is fixed
    executor.for_pieces(logits.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            if ((t + 1) % length != 0) {
                auto const next = static_cast<index_t>(tokens[static_cast<std::size_t>(t + 1)]);
                DETENT_EXPECTS(next >= 0 && next < logits.cols());
                losses[static_cast<std::size_t>(t)] = log_sum_exp(logits, t) - static_cast<double>(logits(t, next));
            }
        }
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
}

} // namespace detent::inline DETENT_ABI::nn
