// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/token_sums.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// Divides each row by its root mean square: y = x / sqrt(mean(x^2) + eps) * weight.
/// `inputs` x and the result are (token, feature), `weight` has one entry per feature.
template <class X>
basic_matrix<scalar_of<X>> rms_norm(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight,
                                    scalar_of<X> eps, executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(weight.size() == x.cols(), "norm", "has not one weight for each feature");
    basic_matrix<Scalar> y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            Scalar const mean_square = x.row(t).squaredNorm() / static_cast<Scalar>(x.cols());
            y.row(t) = x.row(t).cwiseProduct(weight.transpose()) * (Scalar(1) / std::sqrt(mean_square + eps));
        }
    });
    return y;
}

/// The gradient of `rms_norm` with respect to its inputs; `g` is that with respect to its result, all are (token,
/// feature). The gradient with respect to the weight is added to `weight_gradient`, if that is given.
template <class X>
basic_matrix<scalar_of<X>>
rms_norm_backward(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight, scalar_of<X> eps,
                  basic_matrix_view<scalar_of<X>> g, basic_vector<scalar_of<X>>* weight_gradient = nullptr,
                  executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(weight.size() == x.cols() && shape_of(g) == shape_of(x), "norm",
                 "has weights or a gradient that do not fit the inputs");
    expect_valid(weight_gradient == nullptr || weight_gradient->size() == x.cols(), "norm",
                 "has a gradient of weights of another size");
    basic_matrix<Scalar> x_gradient(x.rows(), x.cols()); // (token, feature)
    basic_vector<Scalar> r(x.rows());                    // 1 / sqrt(mean(x^2) + eps) of each token
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            auto const features = static_cast<Scalar>(x.cols());
            r(t) = Scalar(1) / std::sqrt(x.row(t).squaredNorm() / features + eps);
            auto row = x_gradient.row(t);
            row = g.row(t).cwiseProduct(weight.transpose()); // with respect to x r
            Scalar const along = row.dot(x.row(t)) * r(t) * r(t) / features;
            row = (row - x.row(t) * along) * r(t);
        }
    });
    if (weight_gradient != nullptr) {
        add_over_tokens(*weight_gradient, x.rows(), executor, [&](index_t t, index_t begin, index_t count) {
            return g.row(t).segment(begin, count).array() * x.row(t).segment(begin, count).array() * r(t);
        });
    }
    return x_gradient;
}

/// Gives each row mean 0 and variance 1: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias.
/// `inputs` x and the result are (token, feature), `weight` has one entry per feature, `bias` too, or none.
template <class X>
basic_matrix<scalar_of<X>> layer_norm(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight,
                                      basic_vector<scalar_of<X>> const& bias, scalar_of<X> eps,
                                      executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(weight.size() == x.cols() && (bias.size() == x.cols() || bias.size() == 0), "norm",
                 "has weights or a bias that do not fit the inputs");
    basic_matrix<Scalar> y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            auto row = y.row(t);
            // The variance of the centred row: mean(x^2) - mean(x)^2 would cancel where the mean is large.
            row = x.row(t).array() - x.row(t).mean();
            Scalar const variance = row.squaredNorm() / static_cast<Scalar>(x.cols());
            row = row.cwiseProduct(weight.transpose()) * (Scalar(1) / std::sqrt(variance + eps));
            if (bias.size() > 0) {
                row += bias.transpose();
            }
        }
    });
    return y;
}

/// The gradient of `layer_norm` with respect to its inputs; `g` is that with respect to its result, all are (token,
/// feature). The gradients with respect to weight and bias are added to those that are given.
template <class X>
basic_matrix<scalar_of<X>>
layer_norm_backward(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight, scalar_of<X> eps,
                    basic_matrix_view<scalar_of<X>> g, basic_vector<scalar_of<X>>* weight_gradient = nullptr,
                    basic_vector<scalar_of<X>>* bias_gradient = nullptr, executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(weight.size() == x.cols() && shape_of(g) == shape_of(x), "norm",
                 "has weights or a gradient that do not fit the inputs");
    expect_valid(weight_gradient == nullptr || weight_gradient->size() == x.cols(), "norm",
                 "has a gradient of weights of another size");
    expect_valid(bias_gradient == nullptr || bias_gradient->size() == x.cols(), "norm",
                 "has a gradient of its bias of another size");
    basic_matrix<Scalar> x_gradient(x.rows(), x.cols()); // (token, feature)
    basic_vector<Scalar> mean(x.rows());                 // of each token
    basic_vector<Scalar> r(x.rows());                    // 1 / sqrt(var(x) + eps) of each token
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        Eigen::Matrix<Scalar, 1, Eigen::Dynamic> centred(x.cols());
        for (index_t t = begin; t < end; ++t) {
            auto const features = static_cast<Scalar>(x.cols());
            mean(t) = x.row(t).mean();
            centred = x.row(t).array() - mean(t);
            r(t) = Scalar(1) / std::sqrt(centred.squaredNorm() / features + eps);
            auto row = x_gradient.row(t);
            row = g.row(t).cwiseProduct(weight.transpose()); // with respect to (x - mean) r
            Scalar const along = row.dot(centred) * r(t) * r(t) / features;
            Scalar const row_mean = row.mean();
            row = ((row.array() - row_mean) - centred.array() * along) * r(t);
        }
    });
    if (weight_gradient != nullptr) {
        add_over_tokens(*weight_gradient, x.rows(), executor, [&](index_t t, index_t begin, index_t count) {
            return g.row(t).segment(begin, count).array() * (x.row(t).segment(begin, count).array() - mean(t)) * r(t);
        });
    }
    if (bias_gradient != nullptr) {
        add_over_tokens(*bias_gradient, x.rows(), executor, [&](index_t t, index_t begin, index_t count) {
            return g.row(t).segment(begin, count).array();
        });
    }
    return x_gradient;
}

} // namespace detent::inline DETENT_ABI::nn
