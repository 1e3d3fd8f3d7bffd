// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// Divides each row by its root mean square: y = x / sqrt(mean(x^2) + eps) * weight.
/// `x` and the result are (token, feature), `weight` has one entry per feature.
inline matrix rms_norm(matrix_view x, vector const& weight, float eps, executor_ref executor = {}) {
    DETENT_EXPECTS(weight.size() == x.cols());
    matrix y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            float const mean_square = x.row(t).squaredNorm() / static_cast<float>(x.cols());
            y.row(t) = x.row(t).cwiseProduct(weight.transpose()) * (1.0F / std::sqrt(mean_square + eps));
        }
    });
    return y;
}

/// Gives each row mean 0 and variance 1: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias.
/// `x` and the result are (token, feature), `weight` has one entry per feature, `bias` too, or none.
inline matrix layer_norm(matrix_view x, vector const& weight, vector const& bias, float eps,
                         executor_ref executor = {}) {
    DETENT_EXPECTS(weight.size() == x.cols() && (bias.size() == x.cols() || bias.size() == 0));
    matrix y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            auto row = y.row(t);
            // The variance of the centred row: mean(x^2) - mean(x)^2 would cancel where the mean is large.
            row = x.row(t).array() - x.row(t).mean();
            float const variance = row.squaredNorm() / static_cast<float>(x.cols());
            row = row.cwiseProduct(weight.transpose()) * (1.0F / std::sqrt(variance + eps));
            if (bias.size() > 0) {
                row += bias.transpose();
            }
        }
    });
    return y;
}

} // namespace detent::inline DETENT_ABI::nn
