// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <utility>

#include "detent/core/executor.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/epilogue.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/epilogue.hpp"
#include "detent/simd/product.hpp"

// Products of dense matrices whose numbers take 16 or 32 bits: what those of packed matrices are measured against.

namespace detent::inline DETENT_ABI::kernel {

/// A borrowed dense matrix (out, in), row after row, at any address. Nothing is read after the last number.
struct dense_view {
    std::uint8_t const* numbers;
    float_format format;
    extents shape;
};

/// y[t][r] = <x[t], w[r]> for rows r = row, row + distance, ... up to `last`, after which that again, and tokens t =
/// token, ..., as many as numbers in the two sequences.
template <float_format Format, int... Row, int... Token>
void dot_dense(dense_view const& w, index_t row, index_t distance, index_t last, float const* x, index_t x_stride,
               index_t token, float* y, index_t y_stride, std::integer_sequence<int, Row...>,
               std::integer_sequence<int, Token...>) noexcept {
    constexpr index_t width = bits_of(Format) / 8;
    index_t const cols = w.shape.cols;
    index_t const row_of[] = {std::min(row + Row * distance, last)...};
    std::uint8_t const* const numbers[] = {(w.numbers + row_of[Row] * cols * width)...};
    floats sums[sizeof...(Token)][sizeof...(Row)];
    ((std::fill(sums[Token], sums[Token] + sizeof...(Row), floats(0.0F))), ...);
    auto const add = [&](index_t k, auto const& input) {
        (__builtin_prefetch(numbers[Row] + k * width + 2048, 0, 2), ...); // into the second-level cache
        floats const weights[] = {load_weak<Format>(numbers[Row] + k * width)...};
        auto const add_token = [&](int t, floats from) {
            ((sums[t][Row] = xsimd::fma(weights[Row], from, sums[t][Row])), ...);
        };
        (add_token(Token, input(x + (token + Token) * x_stride + k)), ...);
    };
    index_t k = 0;
    for (; k + lanes <= cols; k += lanes) {
        add(k, [](float const* from) { return floats::load_unaligned(from); });
    }
    float rests[sizeof...(Token)][sizeof...(Row)] = {};
    for (; k < cols; ++k) {
        auto const weight = [&](index_t r) { return weak_number<Format>(numbers[r], k); };
        auto const add_token = [&](int t, float from) { ((rests[t][Row] += weight(Row) * from), ...); };
        (add_token(Token, x[(token + Token) * x_stride + k]), ...);
    }
    auto const put = [&](int t) {
        float totals[4];
        sums_of_four(sums[t], totals);
        ((y[(token + t) * y_stride + row_of[Row]] = totals[Row] + rests[t][Row]), ...);
    };
    (put(Token), ...);
}

/// Calls `finish(first, last)` for rows whose sums y = x W^T are complete, for `tokens` inputs: x (tokens, in),
/// y (tokens, out), rows `x_stride` and `y_stride` floats apart. The same bits for any executor.
template <float_format Format, class Finish>
void multiply_dense(dense_view const& w, float const* x, index_t x_stride, index_t tokens, float* y, index_t y_stride,
                    executor_ref executor, Finish const& finish_rows) {
    constexpr index_t most_at_once = 4;
    if (tokens <= 2 * most_at_once) {
        index_t const rows = std::max<index_t>(64, (index_t{1} << 19) / std::max<index_t>(w.shape.cols, 1));
        executor.for_pieces(w.shape.rows, rows, [&](index_t first, index_t last) {
            index_t const distance = ceil_div(last - first, 4);
            auto const multiply = [&]<int Tokens>(index_t token) {
                for (index_t row = first; row < first + distance; ++row) {
                    dot_dense<Format>(w, row, distance, last - 1, x, x_stride, token, y, y_stride,
                                      std::make_integer_sequence<int, 4>{}, std::make_integer_sequence<int, Tokens>{});
                }
            };
            index_t token = 0;
            for (; token + most_at_once <= tokens; token += most_at_once) {
                multiply.template operator()<most_at_once>(token);
            }
            for (; token < tokens; ++token) {
                multiply.template operator()<1>(token);
            }
            finish_rows(first, last);
        });
        return;
    }
    constexpr index_t width = bits_of(Format) / 8;
    constexpr index_t block = 256; // rows and columns; as floats they fit the second-level cache
    constexpr index_t of_worker = block * block;
    scratch memory(executor);
    auto* const of_all = memory.take<float>(std::min(executor.workers(), ceil_div(w.shape.rows, block)) * of_worker);
    std::atomic<index_t> next_worker = 0;
    auto const make = [&] { return of_all + next_worker++ * of_worker; };
    executor.for_pieces(w.shape.rows, block, make, [&](float* part, index_t first, index_t last) {
        for (index_t t = 0; t < tokens; ++t) {
            std::fill(y + t * y_stride + first, y + t * y_stride + last, 0.0F);
        }
        for (index_t k = 0; k < w.shape.cols; k += block) {
            index_t const n = std::min(block, w.shape.cols - k);
            for (index_t r = first; r < last; ++r) {
                to_floats<Format>(w.numbers + (r * w.shape.cols + k) * width, n, part + (r - first) * block);
            }
            simd::products<float>::add(tokens, last - first, n, 1.0F, {x + k, x_stride},
                                       simd::strided<float>{part, block}.transpose(), y + first, y_stride);
        }
        finish_rows(first, last);
    });
}

/// y = after(x W^T) for `tokens` inputs: x (tokens, in), y (tokens, out), rows `x_stride` and `y_stride` floats apart.
/// Bits do not depend on the executor.
template <std::same_as<float> Number>
void multiply_dense(dense_view const& w, Number const* x, index_t x_stride, index_t tokens, Number* y, index_t y_stride,
                    epilogue const& after, executor_ref executor = {}) {
    scratch memory(executor);
    bool const apart = after.plus != nullptr && after.plus == y; // then y is read after its sums are complete
    float* const sums = apart ? memory.take<float>(tokens * w.shape.rows) : y;
    index_t const stride = apart ? w.shape.rows : y_stride;
    auto const finish_rows = [&](index_t first, index_t last) {
        for (index_t t = 0; t < (after.empty() ? 0 : tokens); ++t) {
            finish(after, t, first, last, sums + t * stride, y + t * y_stride);
        }
    };
    auto const multiply = [&]<float_format Format> {
        multiply_dense<Format>(w, x, x_stride, tokens, sums, stride, executor, finish_rows);
    };
    switch (w.format) {
    case float_format::f16:
        return multiply.template operator()<float_format::f16>();
    case float_format::bf16:
        return multiply.template operator()<float_format::bf16>();
    case float_format::f32:
        return multiply.template operator()<float_format::f32>();
    }
}

} // namespace detent::inline DETENT_ABI::kernel
