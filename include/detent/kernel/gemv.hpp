// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/index.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/simd/lookup.hpp"
#include "detent/simd/unpack.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// The next `lanes` numbers for codes.
template <int Bits> floats look_up(simd::lookup_table<Bits> const& table, code const* codes) noexcept {
    if constexpr (simd::lookup_table<Bits>::width == lanes) {
        return floats(table(codes));
    } else {
        alignas(64) float numbers[lanes];
        for (index_t i = 0; i < lanes; ++i) {
            numbers[i] = table.at(codes[i]);
        }
        return floats::load_aligned(numbers);
    }
}

/// <x, w[row]> for one input, whose codes meet it right after the lookup: the scale is applied once for each tile. Weak
/// columns count as 0.
template <int Bits>
float dot_row(packed_view const& w, simd::lookup_table<Bits> const& table, index_t row, float const* x) noexcept {
    alignas(64) code codes[longest_run];
    index_t const tiles = row / w.tile.rows * w.tiles_per_row;
    floats total(0.0F);
    float rest = 0;
    for (index_t begin = 0; begin < w.shape.cols; begin += longest_run) {
        index_t const n = std::min(longest_run, w.shape.cols - begin);
        simd::unpack<Bits>(w.codes + row * w.row_bytes + begin / 8 * Bits, n, codes);
        for (index_t i = 0; i < n;) {
            index_t const in_row = (begin + i) / w.tile.cols;
            index_t const end = std::min(n, (in_row + 1) * w.tile.cols - begin);
            float const scale = w.scales[tiles + in_row];
            float const zero = w.zeros != nullptr ? w.zeros[tiles + in_row] : 0.0F;
            floats even(0.0F); // two sums: one would wait for itself
            floats odd(0.0F);
            for (; i + 2 * lanes <= end; i += 2 * lanes) {
                even = xsimd::fma(look_up(table, codes + i) - zero, floats::load_unaligned(x + begin + i), even);
                odd = xsimd::fma(look_up(table, codes + i + lanes) - zero,
                                 floats::load_unaligned(x + begin + i + lanes), odd);
            }
            total = xsimd::fma(even + odd, floats(scale), total);
            for (; i < end; ++i) {
                rest += (w.table[codes[i]] - zero) * scale * x[begin + i];
            }
        }
    }
    return sum(total) + rest;
}

/// y[r] += <x, w[r]> over n elements for `Rows` rows, longest_run floats apart.
template <int Rows> void dot_rows(float const* w, float const* x, index_t n, float* y) noexcept {
    floats sums[array_size(Rows)];
    std::fill(sums, sums + Rows, floats(0.0F));
    index_t k = 0;
    for (; k + lanes <= n; k += lanes) {
        floats const input = floats::load_unaligned(x + k);
#pragma GCC unroll 4 // as only sums that constants index stay in registers
        for (int r = 0; r < Rows; ++r) {
            sums[r] = xsimd::fma(input, floats::load_unaligned(w + r * longest_run + k), sums[r]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
        float total = sum(sums[r]);
        for (index_t i = k; i < n; ++i) {
            total += x[i] * w[r * longest_run + i];
        }
        y[r] += total;
    }
}

/// y[t][r] += <x[t], w[row + r]> for `Rows` rows and a few inputs.
template <int Bits, int Rows>
void gemv_rows(packed_view const& w, index_t row, float const* x, index_t x_stride, index_t tokens, float* y,
               index_t y_stride) noexcept {
    alignas(64) float decoded[array_size(Rows * longest_run)];
    for (index_t begin = 0; begin < w.shape.cols; begin += longest_run) {
        index_t const n = std::min(longest_run, w.shape.cols - begin);
        for (int r = 0; r < Rows; ++r) {
            decode<Bits>(w, row + r, begin, n, decoded + r * longest_run);
        }
        for (index_t t = 0; t < tokens; ++t) {
            dot_rows<Rows>(decoded, x + t * x_stride + begin, n, y + t * y_stride);
        }
    }
}

/// y = x W^T for a few inputs and rows [first, last) of W: several inputs share the decoded weights.
template <int Bits>
void gemv(packed_view const& w, index_t first, index_t last, float const* x, index_t x_stride, index_t tokens, float* y,
          index_t y_stride) noexcept {
    if (tokens == 1) {
        simd::lookup_table<Bits> const table(w.table, w.consecutive);
        for (index_t row = first; row < last; ++row) {
            y[row] = dot_row<Bits>(w, table, row, x);
        }
        add_weak(w.weak, first, last, x, y);
        return;
    }
    for (index_t t = 0; t < tokens; ++t) {
        std::fill(y + t * y_stride + first, y + t * y_stride + last, 0.0F);
    }
    index_t row = first;
    for (; row + 4 <= last; row += 4) {
        gemv_rows<Bits, 4>(w, row, x, x_stride, tokens, y + row, y_stride);
    }
    for (; row < last; ++row) {
        gemv_rows<Bits, 1>(w, row, x, x_stride, tokens, y + row, y_stride);
    }
}

} // namespace detent::inline DETENT_ABI::kernel
