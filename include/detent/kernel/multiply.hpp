// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/executor.hpp"
#include "detent/kernel/blocks.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/kernel/gemm.hpp"
#include "detent/kernel/gemv.hpp"
#include "detent/kernel/input_format.hpp"
#include "detent/kernel/integer_product.hpp"
#include "detent/kernel/known.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/pack/linear.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// y = x W^T for `tokens` inputs: x (tokens, in) in the stored order of columns, y (tokens, out), rows `x_stride` and
/// `y_stride` floats apart. The same bits for any executor.
///
/// A few inputs of 256 features and more may be taken as integers of 24 bits times a power of two for each eight
/// consecutive stored columns, and their products with small integers are summed exactly, as `input_format::f32` says.
/// What is `Known` of the product leaves kernels out of the program and changes no bit.
template <class Known = any_weights>
void multiply(packed_view const& w, float const* x, index_t x_stride, index_t tokens, float* y, index_t y_stride,
              executor_ref executor = {}, input_format format = input_format::f32) {
    DETENT_EXPECTS(Known::takes(format));
    if constexpr (Known::takes(input_format::int8)) {
        if (format == input_format::int8 && tokens > most_tokens_of_integer_blocks && simd::has_byte_dot) {
            if (auto const numbers = byte_numbers::of(w)) {
                return multiply_rounded<Known>(*numbers, w, x, x_stride, tokens, y, y_stride, executor);
            }
        }
    }
    if (has_blocks<Known>(w, tokens, format)) {
        return multiply_blocks<Known>(w, x, x_stride, tokens, y, y_stride, format, executor);
    }
    if (format != input_format::f32) { // the product of rounded inputs
        float* const rounded = kept_floats<uses::rounded_inputs>(tokens * w.shape.cols);
        for (index_t t = 0; t < tokens; ++t) {
            round_inputs(w, format, x + t * x_stride, rounded + t * w.shape.cols);
        }
        return multiply<Known>(w, rounded, w.shape.cols, tokens, y, y_stride, executor);
    }
    // From here on decoding into a panel pays. The choice looks at all tokens, so that pieces cannot change it.
    bool const many = tokens >= 16;
    index_t const rows_per_task = many ? 2 * panel_rows : 64;
    index_t const tokens_per_task = 256; // a panel serves this many; their inputs stay in the second-level cache
    index_t const row_tasks = ceil_div(w.shape.rows, rows_per_task);
    with_bits_of<Known>(w, [&]<int Bits> {
        auto const product = many ? gemm<Bits> : gemv<Bits>;
        executor.for_each(row_tasks * ceil_div(tokens, tokens_per_task), [&](index_t task) {
            index_t const first = task % row_tasks * rows_per_task;
            index_t const token = task / row_tasks * tokens_per_task;
            product(w, first, std::min(w.shape.rows, first + rows_per_task), x + token * x_stride, x_stride,
                    std::min(tokens_per_task, tokens - token), y + token * y_stride, y_stride);
        });
    });
}

/// y = x W^T for activations of integers, x (token, in) of codes in the stored order of columns. Answers whether there
/// is such a product; if not, y is as it was. The same bits for any executor.
template <class Known = any_weights>
bool multiply(packed_view const& w, quantized_activations const& x, float* y, index_t y_stride,
              executor_ref executor = {}) {
    if constexpr (Known::may_be_integers) {
        if (auto const form = integer_form_of<std::int8_t>(w, x); form && has_blocks<Known>(*form, w, x)) {
            multiply_blocks<Known>(*form, w, x, y, y_stride, executor);
            return true;
        }
        return with_integer_form(w, x, [&]<class T>(integer_form const& form, T) {
            multiply<T, Known>(form, w, x, y, y_stride, executor);
        });
    } else {
        return false;
    }
}

} // namespace detent::inline DETENT_ABI::kernel
