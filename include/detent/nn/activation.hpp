// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <concepts>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// The nonlinearity between the two projections of a feed-forward network.
enum class activation { silu, gelu, gelu_tanh, relu };

/// One token's features.
template <class Scalar> using basic_row = Eigen::Array<Scalar, 1, Eigen::Dynamic>;

/// x * sigmoid(x), elementwise. Takes `x` by value so that a caller who is done with it can move it in.
template <class Scalar> basic_matrix<Scalar> silu(basic_matrix<Scalar> x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = x.middleRows(begin, end - begin).array();
        rows /= Scalar(1) + (-rows).exp();
    });
    return x;
}

/// The gradient of `silu` with respect to its inputs x, given that with respect to its result, `g`; both are (token,
/// feature). Takes `g` by value, as all gradients of elementwise functions do, so that the result can reuse it.
template <class X>
basic_matrix<scalar_of<X>> silu_backward(Eigen::MatrixBase<X> const& inputs, basic_matrix<scalar_of<X>> g,
                                         executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(shape_of(x) == shape_of(g), "gradient", "has another shape than the inputs");
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t r = begin; r < end; ++r) {
            auto const row = x.row(r).array();
            basic_row<Scalar> const s = (Scalar(1) + (-row).exp()).inverse(); // sigmoid(x)
            g.row(r).array() *= s * (Scalar(1) + row * (Scalar(1) - s));
        }
    });
    return g;
}

/// The normal distribution function of each entry: in float with a relative error below 1e-5 for x > -8, in double to
/// rounding.
template <class Scalar> basic_row<Scalar> normal_distribution(Eigen::Ref<basic_row<Scalar> const> const& x) {
    if constexpr (std::same_as<Scalar, float>) {
        // Phi(-|x|) = erfc(|x| / sqrt(2)) / 2 by the Chebyshev fit of Press et al., Numerical Recipes, 6.2.2: its
        // relative error is 1.2e-7 everywhere, where 1 + erf(x / sqrt(2)) would cancel for negative x.
        basic_row<float> const z = x.abs() * 0.70710678F;
        basic_row<float> const t = (1.0F + 0.5F * z).inverse();
        basic_row<float> p = 0.17087277F * t - 0.82215223F;
        for (float const c : {1.48851587F, -1.13520398F, 0.27886807F, -0.18628806F, 0.09678418F, 0.37409196F,
                              1.00002368F, -1.26551223F}) {
            p = p * t + c;
        }
        p = 0.5F * t * (p - z.square()).exp();
        p = (x > 0.0F).select(1.0F - p, p);
        return p;
    } else {
        return x.unaryExpr([](Scalar v) { return Scalar(0.5) * std::erfc(-v * Scalar(0.70710678118654752)); });
    }
}

/// x * Phi(x) with the normal distribution function Phi, elementwise; relative error as `normal_distribution`.
template <class Scalar> basic_matrix<Scalar> gelu(basic_matrix<Scalar> x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        for (index_t r = begin; r < end; ++r) {
            auto row = x.row(r).array();
            row *= normal_distribution<Scalar>(row);
        }
    });
    return x;
}

/// The gradient of `gelu`, Phi(x) + x Phi'(x) times `g`; see `silu_backward`.
template <class X>
basic_matrix<scalar_of<X>> gelu_backward(Eigen::MatrixBase<X> const& inputs, basic_matrix<scalar_of<X>> g,
                                         executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(shape_of(x) == shape_of(g), "gradient", "has another shape than the inputs");
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        Scalar const peak = Scalar(0.39894228040143268); // 1 / sqrt(2 pi), the normal density at 0
        for (index_t r = begin; r < end; ++r) {
            auto const row = x.row(r).array();
            g.row(r).array() *= normal_distribution<Scalar>(row) + peak * row * (Scalar(-0.5) * row.square()).exp();
        }
    });
    return g;
}

/// 2 sqrt(2 / pi); in float the neighbour of the nearest one.
template <class Scalar> inline constexpr Scalar gelu_tanh_slope = Scalar(1.5957691216057308);
template <> inline constexpr float gelu_tanh_slope<float> = 1.5957691F;

/// The tanh form of GELU, 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), elementwise.
template <class Scalar> basic_matrix<Scalar> gelu_tanh(basic_matrix<Scalar> x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = x.middleRows(begin, end - begin).array();
        // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), which keeps its relative precision for negative u.
        rows /= Scalar(1) + (-gelu_tanh_slope<Scalar> * rows * (Scalar(1) + Scalar(0.044715) * rows.square())).exp();
    });
    return x;
}

/// The gradient of `gelu_tanh`; see `silu_backward`.
template <class X>
basic_matrix<scalar_of<X>> gelu_tanh_backward(Eigen::MatrixBase<X> const& inputs, basic_matrix<scalar_of<X>> g,
                                              executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(shape_of(x) == shape_of(g), "gradient", "has another shape than the inputs");
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        Scalar const slope = gelu_tanh_slope<Scalar>, cube = Scalar(0.044715);
        for (index_t r = begin; r < end; ++r) {
            auto const row = x.row(r).array();
            // The sigmoid s of 2 u = slope (x + cube x^3): the result was x s.
            basic_row<Scalar> const s =
                (Scalar(1) + (-slope * row * (Scalar(1) + cube * row.square())).exp()).inverse();
            auto const inner = slope * row * (Scalar(1) + Scalar(3) * cube * row.square()); // x (2 u)'
            g.row(r).array() *= s * (Scalar(1) + inner * (Scalar(1) - s));
        }
    });
    return g;
}

/// max(x, 0), elementwise.
template <class Scalar> basic_matrix<Scalar> relu(basic_matrix<Scalar> x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = x.middleRows(begin, end - begin).array();
        rows = rows.max(Scalar(0));
    });
    return x;
}

/// The gradient of `relu`: `g` where x > 0, else 0; see `silu_backward`.
template <class X>
basic_matrix<scalar_of<X>> relu_backward(Eigen::MatrixBase<X> const& inputs, basic_matrix<scalar_of<X>> g,
                                         executor_ref executor = {}) {
    using Scalar = scalar_of<X>;
    basic_matrix_view<Scalar> const x(inputs);
    expect_valid(shape_of(x) == shape_of(g), "gradient", "has another shape than the inputs");
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = g.middleRows(begin, end - begin).array();
        rows = (x.middleRows(begin, end - begin).array() > Scalar(0)).select(rows, Scalar(0));
    });
    return g;
}

/// The nonlinearity that `kind` names, elementwise.
template <class Scalar>
basic_matrix<Scalar> activate(activation kind, basic_matrix<Scalar> x, executor_ref executor = {}) {
    switch (kind) {
    case activation::silu:
        return silu(std::move(x), executor);
    case activation::gelu:
        return gelu(std::move(x), executor);
    case activation::gelu_tanh:
        return gelu_tanh(std::move(x), executor);
    case activation::relu:
        return relu(std::move(x), executor);
    }
    return x;
}

/// The gradient of the nonlinearity that `kind` names; see `silu_backward`.
template <class X>
basic_matrix<scalar_of<X>> activate_backward(activation kind, Eigen::MatrixBase<X> const& inputs,
                                             basic_matrix<scalar_of<X>> g, executor_ref executor = {}) {
    switch (kind) {
    case activation::silu:
        return silu_backward(inputs, std::move(g), executor);
    case activation::gelu:
        return gelu_backward(inputs, std::move(g), executor);
    case activation::gelu_tanh:
        return gelu_tanh_backward(inputs, std::move(g), executor);
    case activation::relu:
        return relu_backward(inputs, std::move(g), executor);
    }
    return g;
}

/// silu(gate) * up, elementwise; both are (token, feature), and `gate` comes by value so that the result can reuse it.
template <class Up>
basic_matrix<scalar_of<Up>> swiglu(basic_matrix<scalar_of<Up>> gate, Eigen::MatrixBase<Up> const& ups,
                                   executor_ref executor = {}) {
    using Scalar = scalar_of<Up>;
    basic_matrix_view<Scalar> const up(ups);
    expect_valid(shape_of(gate) == shape_of(up), "gate", "has another shape than up");
    executor.for_pieces(gate.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = gate.middleRows(begin, end - begin).array();
        rows *= up.middleRows(begin, end - begin).array() / (Scalar(1) + (-rows).exp());
    });
    return gate;
}

/// Gradients with respect to both inputs of `swiglu`, (token, feature).
template <class Scalar> struct swiglu_gradients {
    basic_matrix<Scalar> gate;
    basic_matrix<Scalar> up;
};

/// The gradients of `swiglu`, given that with respect to its result, `gradients`; all are (token, feature). The inputs
/// come by value so that the results can reuse them.
template <class G>
swiglu_gradients<scalar_of<G>> swiglu_backward(basic_matrix<scalar_of<G>> gate, basic_matrix<scalar_of<G>> up,
                                               Eigen::MatrixBase<G> const& gradients, executor_ref executor = {}) {
    using Scalar = scalar_of<G>;
    basic_matrix_view<Scalar> const g(gradients);
    expect_valid(shape_of(gate) == shape_of(g) && shape_of(up) == shape_of(g), "gradient",
                 "has another shape than gate and up");
    executor.for_pieces(g.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        basic_row<Scalar> s(g.cols()), slope(g.cols()); // sigmoid(gate); the derivative of silu
        for (index_t r = begin; r < end; ++r) {
            auto gate_row = gate.row(r).array();
            auto up_row = up.row(r).array();
            s = (Scalar(1) + (-gate_row).exp()).inverse();
            slope = s * (Scalar(1) + gate_row * (Scalar(1) - s));
            s *= gate_row; // silu(gate)
            gate_row = g.row(r).array() * up_row * slope;
            up_row = g.row(r).array() * s;
        }
    });
    return {std::move(gate), std::move(up)};
}

} // namespace detent::inline DETENT_ABI::nn
