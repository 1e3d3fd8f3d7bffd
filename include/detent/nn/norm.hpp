// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/token_sums.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// The entries of `weight` that row `t` of `features` features uses. A norm of heads has a row for each head, and
/// weights for all heads or for each its own.
template <class Scalar> auto weight_of_row(basic_vector<Scalar> const& weight, index_t t, index_t features) {
    return weight.segment(t * features % weight.size(), features).transpose();
}

/// Whether `numbers` are as many as the weights of rows of `features` features may be: none, one list, or several.
template <class Scalar> bool are_row_weights(basic_vector<Scalar> const& numbers, index_t features) {
    return numbers.size() == 0 || (features > 0 && numbers.size() % features == 0);
}

/// Adds the sum of `terms(row, begin, count)` over `rows` rows to `sums`, as `add_over_tokens` does, row t to the
/// entries that `weight_of_row` says.
template <class Scalar, class Terms>
void add_over_rows(basic_vector<Scalar>& sums, index_t rows, index_t features, executor_ref executor,
                   Terms const& terms) {
    index_t const lists = sums.size() / features;
    DETENT_EXPECTS(rows % lists == 0);
    for (index_t list = 0; list < lists; ++list) {
        basic_vector<Scalar> part = sums.segment(list * features, features);
        add_over_tokens(part, rows / lists, executor,
                        [&](index_t t, index_t begin, index_t count) { return terms(t * lists + list, begin, count); });
        sums.segment(list * features, features) = part;
    }
}

/// Divides each row by its root mean square: y = x / sqrt(mean(x^2) + eps) * weight.
/// `inputs` x and the result are (token, feature), `weight` has one entry per feature, or none for no weight.
template <class X>
basic_matrix<scalar_of<X>> rms_norm(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight,
                                    scalar_of<X> eps, executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    DETENT_EXPECTS(are_row_weights(weight, x.cols()));
    basic_matrix<Scalar> y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            Scalar const mean_square = x.row(t).squaredNorm() / static_cast<Scalar>(x.cols());
            Scalar const r = Scalar(1) / std::sqrt(mean_square + eps);
            if (weight.size() > 0) {
                y.row(t) = x.row(t).cwiseProduct(weight_of_row(weight, t, x.cols())) * r;
            } else {
                y.row(t) = x.row(t) * r;
            }
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
    DETENT_EXPECTS(are_row_weights(weight, x.cols()) && shape_of(g) == shape_of(x));
    DETENT_EXPECTS(weight_gradient == nullptr || weight_gradient->size() == weight.size());
    basic_matrix<Scalar> x_gradient(x.rows(), x.cols()); // (token, feature)
    basic_vector<Scalar> r(x.rows());                    // 1 / sqrt(mean(x^2) + eps) of each token
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            auto const features = static_cast<Scalar>(x.cols());
            r(t) = Scalar(1) / std::sqrt(x.row(t).squaredNorm() / features + eps);
            auto row = x_gradient.row(t);
            row = g.row(t); // with respect to x r
            if (weight.size() > 0) {
                row = row.cwiseProduct(weight_of_row(weight, t, x.cols()));
            }
            Scalar const along = row.dot(x.row(t)) * r(t) * r(t) / features;
            row = (row - x.row(t) * along) * r(t);
        }
    });
    if (weight_gradient != nullptr && weight.size() > 0) {
        add_over_rows(*weight_gradient, x.rows(), x.cols(), executor, [&](index_t t, index_t begin, index_t count) {
            return g.row(t).segment(begin, count).array() * x.row(t).segment(begin, count).array() * r(t);
        });
    }
    return x_gradient;
}

/// Gives each row mean 0 and variance 1: y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias.
/// `inputs` x and the result are (token, feature), `weight` and `bias` have one entry per feature, or none.
template <class X>
basic_matrix<scalar_of<X>> layer_norm(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight,
                                      basic_vector<scalar_of<X>> const& bias, scalar_of<X> eps,
                                      executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    DETENT_EXPECTS(are_row_weights(weight, x.cols()) && are_row_weights(bias, x.cols()));
    basic_matrix<Scalar> y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t t = begin; t < end; ++t) {
            auto row = y.row(t);
            // The variance of the centred row: mean(x^2) - mean(x)^2 would cancel where the mean is large.
            row = x.row(t).array() - x.row(t).mean();
            Scalar const variance = row.squaredNorm() / static_cast<Scalar>(x.cols());
            Scalar const r = Scalar(1) / std::sqrt(variance + eps);
            if (weight.size() > 0) {
                row = row.cwiseProduct(weight_of_row(weight, t, x.cols())) * r;
            } else {
                row *= r;
            }
            if (bias.size() > 0) {
                row += weight_of_row(bias, t, x.cols());
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
    DETENT_EXPECTS(are_row_weights(weight, x.cols()) && shape_of(g) == shape_of(x));
    DETENT_EXPECTS(weight_gradient == nullptr || weight_gradient->size() == weight.size());
    DETENT_EXPECTS(bias_gradient == nullptr || are_row_weights(*bias_gradient, x.cols()));
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
            row = g.row(t); // with respect to (x - mean) r
            if (weight.size() > 0) {
                row = row.cwiseProduct(weight_of_row(weight, t, x.cols()));
            }
            Scalar const along = row.dot(centred) * r(t) * r(t) / features;
            Scalar const row_mean = row.mean();
            row = ((row.array() - row_mean) - centred.array() * along) * r(t);
        }
    });
    if (weight_gradient != nullptr && weight.size() > 0) {
        add_over_rows(*weight_gradient, x.rows(), x.cols(), executor, [&](index_t t, index_t begin, index_t count) {
            return g.row(t).segment(begin, count).array() * (x.row(t).segment(begin, count).array() - mean(t)) * r(t);
        });
    }
    if (bias_gradient != nullptr && bias_gradient->size() > 0) {
        add_over_rows(*bias_gradient, x.rows(), x.cols(), executor,
                      [&](index_t t, index_t begin, index_t count) { return g.row(t).segment(begin, count).array(); });
    }
    return x_gradient;
}

/// The features of each head as a row of its own: (token, head * head_dim) to (token * heads, head_dim). Copied rows of
/// `head_norm` and its gradient, which is how norms of heads are the norms above.
template <class X> basic_matrix<scalar_of<X>> rows_of_heads(Eigen::MatrixBase<X> const& x, index_t head_dim) {
    DETENT_EXPECTS(head_dim > 0 && x.cols() % head_dim == 0);
    basic_matrix<scalar_of<X>> rows = x;
    rows.resize(x.size() / head_dim, head_dim); // as many numbers, which stay
    return rows;
}

/// Multiplies every feature by its own number: y = x * weight. `inputs` x and the result are (token, feature), `weight`
/// has one entry per feature.
template <class X>
basic_matrix<scalar_of<X>> scale_features(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight,
                                          executor_ref executor = {}) {
    basic_matrix_view<scalar_of<X>> const x(inputs);
    DETENT_EXPECTS(weight.size() == x.cols());
    basic_matrix<scalar_of<X>> y(x.rows(), x.cols()); // (token, feature)
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        y.middleRows(begin, end - begin) = x.middleRows(begin, end - begin) * weight.asDiagonal();
    });
    return y;
}

/// The gradient of `scale_features` with respect to its inputs; `g` is that with respect to its result, all are (token,
/// feature). The gradient with respect to the weight is added to `weight_gradient`, if that is given.
template <class X>
basic_matrix<scalar_of<X>>
scale_features_backward(Eigen::MatrixBase<X> const& inputs, basic_vector<scalar_of<X>> const& weight,
                        basic_matrix_view<scalar_of<X>> g, basic_vector<scalar_of<X>>* weight_gradient = nullptr,
                        executor_ref executor = {}) {
    basic_matrix_view<scalar_of<X>> const x(inputs);
    DETENT_EXPECTS(shape_of(g) == shape_of(x));
    if (weight_gradient != nullptr) {
        add_over_rows(*weight_gradient, x.rows(), x.cols(), executor, [&](index_t t, index_t begin, index_t count) {
            return g.row(t).segment(begin, count).array() * x.row(t).segment(begin, count).array();
        });
    }
    return scale_features(g, weight, executor);
}

/// Which norm: RMSNorm, LayerNorm, or none but the multiplication by the weight (`scale_features`).
enum class norm_kind { rms, layer, scale };

/// Normalizes the features of every head separately, as models do with queries and keys: `inputs` x and the result are
/// (token, head * head_dim). `weight` and `bias` have one entry per feature of a head, the same for all heads (Qwen3,
/// Gemma 3), or of all heads (Cohere, StableLM), or none; RMSNorm has no bias.
template <class X>
basic_matrix<scalar_of<X>> head_norm(norm_kind kind, Eigen::MatrixBase<X> const& inputs, index_t head_dim,
                                     basic_vector<scalar_of<X>> const& weight, basic_vector<scalar_of<X>> const& bias,
                                     scalar_of<X> eps, executor_ref executor = {}) {
    auto const rows = rows_of_heads(inputs, head_dim);
    DETENT_EXPECTS(weight.size() <= inputs.cols() && bias.size() <= inputs.cols());
    DETENT_EXPECTS(kind == norm_kind::layer || (kind == norm_kind::rms && bias.size() == 0));
    auto y =
        kind == norm_kind::rms ? rms_norm(rows, weight, eps, executor) : layer_norm(rows, weight, bias, eps, executor);
    y.resize(inputs.rows(), inputs.cols());
    return y;
}

/// The gradient of `head_norm` with respect to its inputs; `g` is that with respect to its result, all are (token, head
/// * head_dim). The gradients with respect to weight and bias are added to those that are given.
template <class X>
basic_matrix<scalar_of<X>>
head_norm_backward(norm_kind kind, Eigen::MatrixBase<X> const& inputs, index_t head_dim,
                   basic_vector<scalar_of<X>> const& weight, scalar_of<X> eps, basic_matrix_view<scalar_of<X>> g,
                   basic_vector<scalar_of<X>>* weight_gradient = nullptr,
                   basic_vector<scalar_of<X>>* bias_gradient = nullptr, executor_ref executor = {}) {
    DETENT_EXPECTS(shape_of(inputs) == shape_of(g));
    auto const rows = rows_of_heads(inputs, head_dim), g_rows = rows_of_heads(g, head_dim);
    auto x_gradient = kind == norm_kind::rms
                          ? rms_norm_backward(rows, weight, eps, g_rows, weight_gradient, executor)
                          : layer_norm_backward(rows, weight, eps, g_rows, weight_gradient, bias_gradient, executor);
    x_gradient.resize(inputs.rows(), inputs.cols());
    return x_gradient;
}

} // namespace detent::inline DETENT_ABI::nn
