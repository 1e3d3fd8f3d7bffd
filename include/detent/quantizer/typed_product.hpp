// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <initializer_list>
#include <memory>
#include <span>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/grid/one_of.hpp"
#include "detent/kernel/known.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/matrix/quantized_matrix.hpp"
#include "detent/quantizer/product.hpp"

// Products with matrices whose grid and granularity are part of their type. They have the bits of those with packed
// matrices in product.hpp; a program that has only these compiles the kernels for its types and no others.

namespace detent::inline DETENT_ABI {

/// What products know of a matrix from its types; nothing of one whose grid is a choice among several.
template <GridOrChoice G, Granularity P> struct known_weights : kernel::any_weights {};
template <Grid G, Granularity P> struct known_weights<G, P> : kernel::weights_of<G, P> {};

/// y = x W^T for floats: x (token, in), y (token, out). The bits are those of the packed matrix, and the same for any
/// executor.
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, matrix_view x, matrix_ref y, executor_ref executor = {}) {
    multiply<kernel::times_floats<known_weights<G, P>>>(w.packed(), x, y, executor);
}

/// y = after(x W^T) for floats, as the other.
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, matrix_view x, matrix_ref y, epilogue const& after,
              executor_ref executor = {}) {
    multiply<kernel::times_floats<known_weights<G, P>>>(w.packed(), x, y, after, executor);
}

/// y = x W^T for inputs that a product may take for what `format` says: x (token, in), y (token, out). As the format is
/// chosen at run time, kernels for all formats are compiled.
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, matrix_view x, matrix_ref y, executor_ref executor,
              input_format format) {
    multiply<known_weights<G, P>>(w.packed(), x, y, executor, format);
}

/// y = after(x W^T) for inputs x (token, in) that are mapped as `w` says, then rounded as `input` says: y (token, out).
/// @throws error when a number of `x` is not finite.
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, activation_quantizer const& input, matrix_view x, matrix_ref y,
              epilogue const& after, executor_ref executor = {}) {
    multiply<known_weights<G, P>>(w.packed(), input, x, y, after, executor);
}
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, activation_quantizer const& input, matrix_view x, matrix_ref y,
              executor_ref executor = {}) {
    multiply(w, input, x, y, epilogue{}, executor);
}

/// y = after(x W^T) for codes of mapped activations: x (token, in), y (token, out). It runs on integers where it does
/// with the packed matrix.
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, activation_view const& x, matrix_ref y, epilogue const& after,
              executor_ref executor = {}) {
    multiply<known_weights<G, P>>(w.packed(), x, y, after, executor);
}
template <GridOrChoice G, Granularity P>
void multiply(quantized_matrix<G, P> const& w, activation_view const& x, matrix_ref y, executor_ref executor = {}) {
    multiply(w, x, y, epilogue{}, executor);
}

/// A `packed_product` whose matrix has its grid and granularity in its type.
template <GridOrChoice G, Granularity P> struct typed_product : packed_product {
    typed_product(quantized_matrix<G, P> const& weights, matrix_ref to, epilogue const& with = {})
        : packed_product(weights.packed(), to, with) {}
};

/// Calls `f(all)` with the span of the same products without the type.
template <GridOrChoice G, Granularity P, class F>
void with_packed_products(std::initializer_list<typed_product<G, P>> products, executor_ref executor, F const& f) {
    scratch memory(executor);
    auto* const all = memory.take<packed_product>(static_cast<index_t>(products.size()));
    std::uninitialized_copy(products.begin(), products.end(), all);
    f(std::span<packed_product const>(all, products.size()));
}

/// Products of several matrices of one type with x (token, in) in one call, as those of packed matrices:
///
///     multiply({typed_product(gate, g), typed_product(up, u, {.function = epilogue_function::silu})}, x);
template <GridOrChoice G, Granularity P>
void multiply(std::initializer_list<typed_product<G, P>> products, matrix_view x, executor_ref executor = {}) {
    with_packed_products(products, executor, [&](std::span<packed_product const> all) {
        multiply<kernel::times_floats<known_weights<G, P>>>(all, x, executor);
    });
}

/// Products of several matrices of one type with inputs that they may take for what `format` says.
template <GridOrChoice G, Granularity P>
void multiply(std::initializer_list<typed_product<G, P>> products, matrix_view x, executor_ref executor,
              input_format format) {
    with_packed_products(products, executor, [&](std::span<packed_product const> all) {
        multiply<known_weights<G, P>>(all, x, executor, format);
    });
}

/// Products of several matrices of one type with inputs that are mapped, then rounded as `input` says. @throws error
/// when a number is not finite.
template <GridOrChoice G, Granularity P>
void multiply(std::initializer_list<typed_product<G, P>> products, activation_quantizer const& input, matrix_view x,
              executor_ref executor = {}) {
    with_packed_products(products, executor, [&](std::span<packed_product const> all) {
        multiply<known_weights<G, P>>(all, input, x, executor);
    });
}

/// Products of several matrices of one type with codes of mapped activations.
template <GridOrChoice G, Granularity P>
void multiply(std::initializer_list<typed_product<G, P>> products, activation_view const& x,
              executor_ref executor = {}) {
    with_packed_products(products, executor,
                         [&](std::span<packed_product const> all) { multiply<known_weights<G, P>>(all, x, executor); });
}

/// x = g W, as a gradient flows back: g (token, out), x (token, in).
template <GridOrChoice G, Granularity P>
void multiply_transposed(quantized_matrix<G, P> const& w, matrix_view g, matrix_ref x, executor_ref executor = {}) {
    multiply_transposed<known_weights<G, P>>(w.packed(), g, x, executor);
}

/// W x for one input x (in), or W X for a column-major X (in, token). @throws error when x has not as many rows as the
/// weights have columns.
template <GridOrChoice G, Granularity P, class Derived>
auto operator*(quantized_matrix<G, P> const& w, Eigen::MatrixBase<Derived> const& x) {
    return multiply_columns<kernel::times_floats<known_weights<G, P>>>(w.packed(), x);
}

} // namespace detent::inline DETENT_ABI
