// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/half.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/kernel/dispatch.hpp"
#include "detent/kernel/integer_form.hpp"
#include "detent/kernel/known.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/epilogue.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/matrix/product_shapes.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "detent/matrix/quantized_matrix.hpp"

// Shapes that do not fit, and matrices that are not whole, are an `error`, found once a call and in release builds too.
// Without tokens there is nothing to do; without inputs all outputs are 0.

// The functions of a packed matrix take what is `Known` of it from those of a quantized matrix, in typed_product.hpp.

namespace detent::inline DETENT_ABI {

/// Whether a product is of nothing, which makes all of `y` 0.
inline bool makes_zeros(extents w, matrix_ref y) {
    if (y.size() > 0 && w.size() > 0) {
        return false;
    }
    for (index_t row = 0; row < y.rows(); ++row) {
        std::fill_n(y.data() + row * y.outerStride(), y.cols(), 0.0F);
    }
    return true;
}

/// One of several products that read the same inputs: y = after(x W^T), y (token, out). Everything is borrowed. Where
/// `after.times` is the `y` of the product before it, both are computed together, as in a gated unit.
struct packed_product {
    packed_matrix const& w;
    float* y;
    index_t tokens;
    index_t outputs;
    index_t y_stride;
    epilogue after;

    packed_product(packed_matrix const& weights, matrix_ref to, epilogue const& with = {})
        : w(weights), y(to.data()), tokens(to.rows()), outputs(to.cols()), y_stride(to.outerStride()), after(with) {}
    template <class G, Granularity P>
    packed_product(quantized_matrix<G, P> const& weights, matrix_ref to, epilogue const& with = {})
        : packed_product(weights.packed(), to, with) {}
};

/// @throws error unless each product fits inputs of this shape and its matrix is whole. Without inputs all outputs are
/// 0.
inline void expect_products(std::span<packed_product const> products, extents x) {
    for (packed_product const& p : products) {
        expect_product(p.w.shape(), x, {p.tokens, p.outputs});
        expect_complete(p.w);
        expect_valid(x.cols > 0 || p.after.empty(), "inputs", "have no features");
        for (index_t t = 0; x.cols == 0 && t < p.tokens; ++t) {
            std::fill_n(p.y + t * p.y_stride, p.outputs, 0.0F);
        }
    }
}

/// Calls `f(views, inputs, memory)` for consecutive products whose maps are equal: with views of these products, mapped
/// inputs x (token, in), and memory that is given back then.
template <class F>
void for_products_of_a_map(std::span<packed_product const> products, matrix_view x, executor_ref executor, F const& f) {
    while (!products.empty() && x.size() > 0) {
        input_map const& map = products.front().w.map;
        std::size_t count = 0;
        scratch memory(executor);
        auto* const views = memory.take<matrix_product>(std::ssize(products));
        for (; count < products.size() && products[count].w.map == map; ++count) {
            packed_product const& p = products[count];
            new (views + count) matrix_product{p.w.view(), p.y, p.y_stride, p.after};
        }
        float const* inputs = x.data();
        index_t stride = x.outerStride();
        if (!map.empty()) {
            auto* const mapped = memory.take<float>(x.rows() * x.cols());
            for (index_t t = 0; t < x.rows(); ++t) {
                std::copy_n(inputs + t * stride, x.cols(), mapped + t * x.cols());
            }
            map.apply_in_place(mapped, x.rows(), x.cols(), executor);
            inputs = mapped;
            stride = x.cols();
        }
        f(std::span<matrix_product const>(views, count), view_of(inputs, x.rows(), x.cols(), stride), memory);
        products = products.subspan(count);
    }
}

/// The products of each matrix of `products` with x (token, in) in one call: what consecutive ones share, the map of
/// inputs, their format and order, is done once, and their rows are one loop of the executor. The bits are those of
/// each product alone. With a workspace, `executor.with_memory(w)`, a call like an earlier one allocates nothing.
template <class Known = kernel::any_weights>
void multiply(std::span<packed_product const> products, matrix_view x, executor_ref executor = {},
              input_format format = input_format::f32) {
    stopwatch::section const timed(executor.watch(), work_kind::products);
    expect_products(products, shape_of(x));
    for_products_of_a_map(
        products, x, executor, [&](std::span<matrix_product const> views, matrix_view inputs, scratch&) {
            kernel::multiply<Known>(views, inputs.data(), inputs.outerStride(), inputs.rows(), executor, format);
        });
}

/// Borrowed inputs (token, in) as numbers of f16, bf16 or f32, at any address.
struct stored_inputs {
    std::uint8_t const* numbers;
    float_format format;
    extents shape;  ///< (token, in)
    index_t stride; ///< numbers from a token to the next
};

/// The products of each matrix of `products` with stored inputs, of which 512 tokens at a time become floats.
template <class Known = kernel::any_weights>
void multiply(std::span<packed_product const> products, stored_inputs const& x, executor_ref executor = {},
              input_format format = input_format::f32) {
    constexpr index_t most_tokens = 512; // whose inputs kernels copy
    index_t const width = bits_of(x.format) / 8;
    scratch memory(executor);
    auto* const floats = memory.take<float>(std::min(most_tokens, x.shape.rows) * x.shape.cols);
    auto* const pieces = memory.take<packed_product>(std::ssize(products));
    for (index_t token = 0; token < x.shape.rows; token += most_tokens) {
        index_t const n = std::min(most_tokens, x.shape.rows - token);
        for (index_t t = 0; t < n; ++t) {
            kernel::to_floats(x.format, x.numbers + (token + t) * x.stride * width, x.shape.cols,
                              floats + t * x.shape.cols);
        }
        for (std::size_t i = 0; i < products.size(); ++i) {
            packed_product& p = *new (pieces + i) packed_product(products[i]);
            DETENT_EXPECTS(p.tokens == x.shape.rows);
            p.y += token * p.y_stride;
            p.tokens = n;
            p.after.times += p.after.times != nullptr ? token * p.after.times_stride : 0;
            p.after.plus += p.after.plus != nullptr ? token * p.after.plus_stride : 0;
        }
        multiply<Known>(std::span<packed_product const>(pieces, products.size()),
                        view_of(floats, n, x.shape.cols, x.shape.cols), executor, format);
    }
}

/// y = after(x W^T) from the packed bytes: x (token, in), y (token, out). Inputs are mapped first. Another format than
/// floats is faster and rounds mapped inputs, as `input_format` says.
template <class Known = kernel::any_weights>
void multiply(packed_matrix const& w, matrix_view x, matrix_ref y, epilogue const& after, executor_ref executor = {},
              input_format format = input_format::f32) {
    packed_product const product(w, y, after);
    multiply<Known>({&product, 1}, x, executor, format);
}

/// y = x W^T, as the other.
template <class Known = kernel::any_weights>
void multiply(packed_matrix const& w, matrix_view x, matrix_ref y, executor_ref executor = {},
              input_format format = input_format::f32) {
    multiply<Known>(w, x, y, epilogue{}, executor, format);
}

/// y = after(x W^T) of borrowed weights, as the other; there is no map.
template <class Known = kernel::any_weights>
void multiply(packed_view const& w, matrix_view x, matrix_ref y, epilogue const& after = {}, executor_ref executor = {},
              input_format format = input_format::f32) {
    expect_product(w.shape, shape_of(x), shape_of(y));
    stopwatch::section const timed(executor.watch(), work_kind::products);
    matrix_product const product{w, y.data(), y.outerStride(), after};
    kernel::multiply<Known>({&product, 1}, x.data(), x.outerStride(), x.rows(), executor, format);
}

/// Whether the product of these weights and activations runs on integers: where the numbers of both grids are small
/// integers times a power of two, as those of integer grids and FP4 are.
inline bool runs_on_integers(packed_matrix const& w, activation_view const& x) {
    return kernel::with_integer_form(w.view(), x, [](auto const&...) {});
}

/// All products with codes of mapped activations, whatever the maps of matrices are.
template <class Known>
void multiply_codes(std::span<matrix_product const> products, activation_view const& x, executor_ref executor) {
    stopwatch::section const timed(executor.watch(), work_kind::products);
    scratch memory(executor);
    float* floats = nullptr; // (token, in), of products that do not run on integers
    while (!products.empty()) {
        index_t done = kernel::multiply<Known>(products, x, executor);
        if (done == 0) {
            if (floats == nullptr) {
                floats = memory.take<float>(x.shape.size());
                for (index_t i = 0; i < x.shape.size(); ++i) {
                    floats[i] = x.at(i / x.shape.cols, i % x.shape.cols);
                }
            }
            done = 1;
            kernel::multiply<kernel::times_floats<Known>>(products.first(1), floats, x.shape.cols, x.shape.rows,
                                                          executor);
        }
        products = products.subspan(static_cast<std::size_t>(done));
    }
}

/// The products of each matrix of `products` with codes of activations x (token, in), which were mapped as the matrices
/// say, in one call, as those with floats. Where a product runs on integers, sums of products within a tile, or within
/// eight columns of it, are exact, and the only rounding is that of these sums, of their scales and of the token's;
/// elsewhere it is the product of floats.
template <class Known = kernel::any_weights>
void multiply(std::span<packed_product const> products, activation_view const& x, executor_ref executor = {}) {
    expect_products(products, x.shape);
    expect_complete(x);
    if (x.shape.size() == 0) {
        return;
    }
    scratch memory(executor);
    auto* const views = memory.take<matrix_product>(std::ssize(products));
    for (std::size_t i = 0; i < products.size(); ++i) {
        packed_product const& p = products[i];
        new (views + i) matrix_product{p.w.view(), p.y, p.y_stride, p.after};
    }
    multiply_codes<Known>({views, products.size()}, x, executor);
}

/// y = after(x W^T) for codes of mapped activations: x (token, in), y (token, out).
template <class Known = kernel::any_weights>
void multiply(packed_matrix const& w, activation_view const& x, matrix_ref y, epilogue const& after,
              executor_ref executor = {}) {
    packed_product const product(w, y, after);
    multiply<Known>({&product, 1}, x, executor);
}

/// y = x W^T, as the other.
template <class Known = kernel::any_weights>
void multiply(packed_matrix const& w, activation_view const& x, matrix_ref y, executor_ref executor = {}) {
    multiply<Known>(w, x, y, epilogue{}, executor);
}

/// The products of each matrix of `products` with inputs x (token, in) that are mapped as it says, then rounded as
/// `input` says: what consecutive matrices with equal maps read is mapped and rounded once.
/// @throws error when a number of `x` is not finite.
template <class Known = kernel::any_weights>
void multiply(std::span<packed_product const> products, activation_quantizer const& input, matrix_view x,
              executor_ref executor = {}) {
    expect_products(products, shape_of(x));
    for_products_of_a_map(products, x, executor,
                          [&](std::span<matrix_product const> views, matrix_view inputs, scratch& memory) {
                              multiply_codes<Known>(views, input.quantize(inputs, memory, executor), executor);
                          });
}

/// y = after(x W^T) for inputs that are mapped, then rounded, as the other: x (token, in), y (token, out).
template <class Known = kernel::any_weights>
void multiply(packed_matrix const& w, activation_quantizer const& input, matrix_view x, matrix_ref y,
              epilogue const& after, executor_ref executor = {}) {
    packed_product const product(w, y, after);
    multiply<Known>({&product, 1}, input, x, executor);
}

/// y = x W^T, as the other.
template <class Known = kernel::any_weights>
void multiply(packed_matrix const& w, activation_quantizer const& input, matrix_view x, matrix_ref y,
              executor_ref executor = {}) {
    multiply<Known>(w, input, x, y, epilogue{}, executor);
}

/// x = g W from the packed bytes, as a gradient flows back: g (token, out), x (token, in).
template <class Known = kernel::any_weights>
void multiply_transposed(packed_matrix const& w, matrix_view g, matrix_ref x, executor_ref executor = {}) {
    expect_product(w.shape(), shape_of(x), shape_of(g));
    expect_complete(w);
    if (makes_zeros(w.shape(), x)) {
        return;
    }
    stopwatch::section const timed(executor.watch(), work_kind::products);
    kernel::multiply_transposed<Known>(w.view(), g.data(), g.outerStride(), g.rows(), x.data(), x.outerStride(),
                                       executor);
    if (!w.map.empty()) { // that was the gradient of mapped inputs
        x = w.map.back(x, executor);
    }
}

/// W X for a column-major X (in, token), or W x for one input x (in), with the kernels that `Known` leaves.
template <class Known, class Derived>
auto multiply_columns(packed_matrix const& w, Eigen::MatrixBase<Derived> const& x) {
    using columns = Eigen::Matrix<float, Eigen::Dynamic, Derived::ColsAtCompileTime, Eigen::ColMajor>;
    expect_features_of(w.shape(), x.rows());
    columns const inputs = x;
    columns y(w.shape().rows, x.cols());
    // A column-major (in, token) matrix has the bytes of a row-major (token, in) one.
    multiply<Known>(w, Eigen::Map<matrix const>(inputs.data(), x.cols(), x.rows()),
                    Eigen::Map<matrix>(y.data(), y.cols(), y.rows()));
    return y;
}

/// W x for one input x (in), or W X for a column-major X (in, token). @throws error when x has not as many rows as the
/// weights have columns.
template <class Derived> auto operator*(packed_matrix const& w, Eigen::MatrixBase<Derived> const& x) {
    return multiply_columns<kernel::times_floats<kernel::any_weights>>(w, x);
}

} // namespace detent::inline DETENT_ABI
