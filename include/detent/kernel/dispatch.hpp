// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "detent/core/executor.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/compiled.hpp"
#include "detent/kernel/known.hpp"
#include "detent/matrix/epilogue.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/matrix/quantized_activations.hpp"

#if !defined(DETENT_KERNELS)
#include "detent/kernel/multiply.hpp"
#include "detent/kernel/transposed.hpp"
#endif

// The products of packed matrices: those of the target detent::kernels, chosen at run time, where a program links it,
// and else those for the instruction set that a translation unit is compiled for.

namespace detent::inline DETENT_ABI::kernel {

#if defined(DETENT_KERNELS)
static_assert(std::is_trivially_copyable_v<matrix_product> && std::is_standard_layout_v<matrix_product>);

/// The loops of an executor, which must outlive them.
inline compiled::loop loop_of(executor_ref const& executor) {
    return {&executor, executor.workers(),
            [](void const* e, std::int64_t n, void (*body)(void*, std::int64_t), void* data) {
                static_cast<executor_ref const*>(e)->for_each(n, [&](index_t i) { body(data, i); });
            },
            executor.memory()};
}

/// y = after(x W^T) of each product, as `multiply` in kernel/multiply.hpp says. The units have the kernels for all
/// matrices: nothing depends on what is `Known` here and below.
template <class Known = any_weights>
void multiply(std::span<matrix_product const> products, float const* x, index_t x_stride, index_t tokens,
              executor_ref executor = {}, input_format format = input_format::f32) {
    compiled::chosen().multiply(products.data(), std::ssize(products), x, x_stride, tokens, loop_of(executor),
                                static_cast<int>(format));
}

/// One product without an epilogue.
template <class Known = any_weights>
void multiply(packed_view const& w, float const* x, index_t x_stride, index_t tokens, float* y, index_t y_stride,
              executor_ref executor = {}, input_format format = input_format::f32) {
    matrix_product const product{w, y, y_stride};
    multiply<Known>({&product, 1}, x, x_stride, tokens, executor, format);
}

/// The first products with activations of integers, as `multiply` in kernel/multiply.hpp says.
template <class Known = any_weights>
index_t multiply(std::span<matrix_product const> products, activation_view const& x, executor_ref executor = {}) {
    static_assert(sizeof(tile_scale) == 2 * sizeof(float) && std::is_same_v<code, std::uint8_t>);
    compiled::activation_codes const codes{x.shape.rows,
                                           x.shape.cols,
                                           x.bits,
                                           x.table.data(),
                                           x.width,
                                           reinterpret_cast<float const*>(x.scales.data()),
                                           std::ssize(x.scales),
                                           x.shifts.empty() ? nullptr : x.shifts.data(),
                                           x.codes.data()};
    return compiled::chosen().multiply_codes(products.data(), std::ssize(products), codes, loop_of(executor));
}

/// y = g W, as `multiply_transposed` in kernel/transposed.hpp says.
template <class Known = any_weights>
void multiply_transposed(packed_view const& w, float const* g, index_t g_stride, index_t tokens, float* y,
                         index_t y_stride, executor_ref executor = {}) {
    compiled::chosen().multiply_transposed(&w, g, g_stride, tokens, y, y_stride, loop_of(executor));
}
#endif

} // namespace detent::inline DETENT_ABI::kernel
