// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <utility>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// The nonlinearity between the two projections of a feed-forward network.
enum class activation { silu, gelu, gelu_tanh, relu };

/// x * sigmoid(x), elementwise. Takes `x` by value so that a caller who is done with it can move it in.
inline matrix silu(matrix x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = x.middleRows(begin, end - begin).array();
        rows /= 1.0F + (-rows).exp();
    });
    return x;
}

/// x * Phi(x) with the normal distribution function Phi, elementwise; relative error below 1e-5 for x > -8.
inline matrix gelu(matrix x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        // Phi(-|x|) = erfc(|x| / sqrt(2)) / 2 by the Chebyshev fit of Press et al., Numerical Recipes, 6.2.2: its
        // relative error is 1.2e-7 everywhere, where 1 + erf(x / sqrt(2)) would cancel for negative x.
        Eigen::Array<float, 1, Eigen::Dynamic> z(x.cols()), t(x.cols()), p(x.cols());
        for (index_t r = begin; r < end; ++r) {
            auto row = x.row(r).array();
            z = row.abs() * 0.70710678F;
            t = (1.0F + 0.5F * z).inverse();
            p = 0.17087277F * t - 0.82215223F;
            for (float const c : {1.48851587F, -1.13520398F, 0.27886807F, -0.18628806F, 0.09678418F, 0.37409196F,
                                  1.00002368F, -1.26551223F}) {
                p = p * t + c;
            }
            p = 0.5F * t * (p - z.square()).exp();
            row *= (row > 0.0F).select(1.0F - p, p);
        }
    });
    return x;
}

/// The tanh form of GELU, 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), elementwise.
inline matrix gelu_tanh(matrix x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = x.middleRows(begin, end - begin).array();
        // (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), which keeps its relative precision for negative u.
        rows /= 1.0F + (-1.5957691F * rows * (1.0F + 0.044715F * rows.square())).exp();
    });
    return x;
}

/// max(x, 0), elementwise.
inline matrix relu(matrix x, executor_ref executor = {}) {
    executor.for_pieces(x.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = x.middleRows(begin, end - begin).array();
        rows = rows.max(0.0F);
    });
    return x;
}

/// The nonlinearity that `kind` names, elementwise.
inline matrix activate(activation kind, matrix x, executor_ref executor = {}) {
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

/// silu(gate) * up, elementwise; both are (token, feature) and come by value so that the result can reuse `gate`.
inline matrix swiglu(matrix gate, matrix_view up, executor_ref executor = {}) {
    DETENT_EXPECTS(shape_of(gate) == shape_of(up));
    executor.for_pieces(gate.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = gate.middleRows(begin, end - begin).array();
        rows *= up.middleRows(begin, end - begin).array() / (1.0F + (-rows).exp());
    });
    return gate;
}

} // namespace detent::inline DETENT_ABI::nn
