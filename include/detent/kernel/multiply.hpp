// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "detent/core/executor.hpp"
#include "detent/kernel/blocks.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/kernel/gemm.hpp"
#include "detent/kernel/gemv.hpp"
#include "detent/kernel/input_format.hpp"
#include "detent/kernel/integer_product.hpp"
#include "detent/kernel/known.hpp"
#include "detent/kernel/row_pieces.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/pack/linear.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// Products that share inputs.
template <class Known>
void multiply_sharing(std::span<matrix_product const> products, float const* x, index_t x_stride, index_t tokens,
                      executor_ref executor, input_format format) {
    packed_view const& w = products.front().w;
    if constexpr (Known::takes(input_format::int8)) {
        if (format == input_format::int8 && tokens > most_tokens_of_integer_blocks && simd::has_byte_dot) {
            if (auto const numbers = byte_numbers::of(w)) {
                return multiply_rounded<Known>(*numbers, products, x, x_stride, tokens, executor);
            }
        }
    }
    if (has_blocks<Known>(w, tokens, format)) {
        return multiply_blocks<Known>(products, x, x_stride, tokens, format, executor);
    }
    scratch memory(executor);
    if (format != input_format::f32) { // the product of rounded inputs
        auto* const rounded = memory.take<float>(tokens * w.shape.cols);
        for (index_t t = 0; t < tokens; ++t) {
            round_inputs(w, format, x + t * x_stride, rounded + t * w.shape.cols);
        }
        return multiply_sharing<Known>(products, rounded, w.shape.cols, tokens, executor, input_format::f32);
    }
    // From here on decoding into a panel pays. The choice looks at all tokens, so that pieces cannot change it.
    bool const many = tokens >= 16;
    // A panel serves 256 tokens; their inputs stay in the second-level cache.
    piece_plan const plan{.rows = many ? 2 * panel_rows : 64, .tokens = 256, .bytes = 0};
    with_bits_of<Known>(w, [&]<int Bits> {
        auto const product = many ? gemm<Bits> : gemv<Bits>;
        auto const make = [](std::uint8_t*) { return 0; };
        for_row_pieces(products, 0, tokens, plan, memory, executor, make, [&](int, row_piece const& p) {
            product(p.w, p.first, p.last, x + p.token * x_stride, x_stride, p.tokens, p.y, p.y_stride);
        });
    });
}

/// y = after(x W^T) of each product for `tokens` inputs: x (tokens, in) in the stored order of columns, `x_stride`
/// floats apart. Consecutive products whose matrices have one grid and tiles of as many columns prepare their inputs
/// once, and their rows are one loop of the executor. The same bits for any executor and for each product alone.
///
/// A few inputs of 256 features and more may be taken as integers of 24 bits times a power of two for each eight
/// consecutive stored columns, and their products with small integers are summed exactly, as `input_format::f32` says.
/// What is `Known` of the products leaves kernels out of the program and changes no bit.
template <class Known = any_weights>
void multiply(std::span<matrix_product const> products, float const* x, index_t x_stride, index_t tokens,
              executor_ref executor = {}, input_format format = input_format::f32) {
    DETENT_EXPECTS(Known::takes(format));
    while (!products.empty()) {
        std::size_t count = 1;
        while (count < products.size() && share_inputs(products[0].w, products[count].w)) {
            ++count;
        }
        multiply_sharing<Known>(products.first(count), x, x_stride, tokens, executor, format);
        products = products.subspan(count);
    }
}

/// One product without an epilogue: y (tokens, out), rows `y_stride` floats apart.
template <class Known = any_weights>
void multiply(packed_view const& w, float const* x, index_t x_stride, index_t tokens, float* y, index_t y_stride,
              executor_ref executor = {}, input_format format = input_format::f32) {
    matrix_product const product{w, y, y_stride};
    multiply<Known>({&product, 1}, x, x_stride, tokens, executor, format);
}

/// The first products with activations of integers, x (token, in) of codes in the stored order of columns. Answers how
/// many were computed: those that share what is made of the activations, or 0 where the first is no product of
/// integers. The same bits for any executor and for each product alone.
template <class Known = any_weights>
index_t multiply(std::span<matrix_product const> products, activation_view const& x, executor_ref executor = {}) {
    if constexpr (Known::may_be_integers) {
        packed_view const& w = products.front().w;
        auto const shares = [&](packed_view const& other) {
            return w.weak.count == 0 && other.weak.count == 0 && share_inputs(w, other);
        };
        std::size_t count = 1;
        while (count < products.size() && shares(products[count].w)) {
            ++count;
        }
        products = products.first(count);
        bool found = true;
        if (auto const form = integer_form_of<std::int8_t>(w, x); form && has_blocks<Known>(*form, w, x)) {
            multiply_blocks<Known>(*form, products, x, executor);
        } else {
            found = with_integer_form(
                w, x, [&]<class T>(integer_form const& f, T) { multiply<T, Known>(f, products, x, executor); });
        }
        return found ? std::ssize(products) : 0;
    } else {
        return 0;
    }
}

} // namespace detent::inline DETENT_ABI::kernel
