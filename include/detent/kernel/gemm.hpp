// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/index.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/kernel/floats.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// Rows of W that a panel holds: two registers of them.
inline constexpr index_t panel_rows = 2 * lanes;
/// Inputs that a panel holds: with two registers of rows it fits the first-level cache.
inline constexpr index_t panel_depth = 256;
/// Tokens whose sums stay in registers; 16 registers hold 2 x 6 sums with what they are made of, 32 hold 2 x 8.
inline constexpr int token_block = lanes >= 16 ? 8 : 6;

/// Part of W^T, decoded once and met by many inputs: element (k, r) at k * panel_rows + r, missing rows are 0.
struct panel {
    alignas(64) float values[panel_depth * panel_rows];

    template <int Bits>
    void fill(packed_view const& w, index_t row, index_t count, index_t begin, index_t n) noexcept {
        float decoded[panel_depth];
        for (index_t r = 0; r < panel_rows; ++r) {
            if (r < count) {
                decode<Bits>(w, row + r, begin, n, decoded);
            } else {
                std::fill(decoded, decoded + n, 0.0F);
            }
            for (index_t k = 0; k < n; ++k) {
                values[k * panel_rows + r] = decoded[k];
            }
        }
    }
};

/// y[t] += W x[t] for the panel_rows rows of a panel and `Tokens` inputs of n elements. Unrolled,
/// as only sums that constants index stay in registers.
template <int Tokens>
void multiply_panel(panel const& w, index_t n, float const* x, index_t x_stride, float* y, index_t y_stride) noexcept {
    floats sums[array_size(Tokens)][2];
#pragma GCC unroll 16
    for (int t = 0; t < Tokens; ++t) {
        sums[t][0] = floats::load_unaligned(y + t * y_stride);
        sums[t][1] = floats::load_unaligned(y + t * y_stride + lanes);
    }
    for (index_t k = 0; k < n; ++k) {
        floats const low = floats::load_aligned(w.values + k * panel_rows);
        floats const high = floats::load_aligned(w.values + k * panel_rows + lanes);
#pragma GCC unroll 16
        for (int t = 0; t < Tokens; ++t) {
            floats const input(x[t * x_stride + k]);
            sums[t][0] = xsimd::fma(input, low, sums[t][0]);
            sums[t][1] = xsimd::fma(input, high, sums[t][1]);
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < Tokens; ++t) {
        sums[t][0].store_unaligned(y + t * y_stride);
        sums[t][1].store_unaligned(y + t * y_stride + lanes);
    }
}

/// The same for any number of inputs.
inline void multiply_panel(panel const& w, index_t n, float const* x, index_t x_stride, index_t tokens, float* y,
                           index_t y_stride) noexcept {
    index_t t = 0;
    for (; t + token_block <= tokens; t += token_block) {
        multiply_panel<token_block>(w, n, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
    }
    for (; t + 2 <= tokens; t += 2) {
        multiply_panel<2>(w, n, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
    }
    if (t < tokens) {
        multiply_panel<1>(w, n, x + t * x_stride, x_stride, y + t * y_stride, y_stride);
    }
}

/// y = x W^T for many inputs and rows [first, last) of W.
template <int Bits>
void gemm(packed_view const& w, index_t first, index_t last, float const* x, index_t x_stride, index_t tokens, float* y,
          index_t y_stride) noexcept {
    panel decoded;
    for (index_t row = first; row < last; row += panel_rows) {
        index_t const count = std::min(panel_rows, last - row);
        for (index_t t = 0; t < tokens; ++t) {
            std::fill_n(y + t * y_stride + row, count, 0.0F);
        }
        for (index_t begin = 0; begin < w.shape.cols; begin += panel_depth) {
            index_t const n = std::min(panel_depth, w.shape.cols - begin);
            decoded.fill<Bits>(w, row, count, begin, n);
            if (count == panel_rows) {
                multiply_panel(decoded, n, x + begin, x_stride, tokens, y + row, y_stride);
                continue;
            }
            for (index_t t = 0; t < tokens; ++t) { // the last rows: y has no room for whole registers
                float sums[panel_rows] = {};
                multiply_panel<1>(decoded, n, x + t * x_stride + begin, x_stride, sums, panel_rows);
                for (index_t r = 0; r < count; ++r) {
                    y[t * y_stride + row + r] += sums[r];
                }
            }
        }
    }
}

} // namespace detent::inline DETENT_ABI::kernel
