// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"
#include "detent/kernel/decode.hpp"

namespace detent::inline DETENT_ABI::kernel {

using floats = xsimd::batch<float>;
inline constexpr auto lanes = static_cast<index_t>(floats::size);

/// The sum of all lanes.
inline float sum(floats v) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::reduce_add(v);
#else
    return xsimd::hadd(v);
#endif
}

/// y[r] += <x, w[r]> over n elements for `Rows` rows, longest_run floats apart.
template <int Rows> void dot_rows(float const* w, float const* x, index_t n, float* y) noexcept {
    floats sums[Rows];
    std::fill(sums, sums + Rows, floats(0.0F));
    index_t k = 0;
    for (; k + lanes <= n; k += lanes) {
        floats const input = floats::load_unaligned(x + k);
        for (int r = 0; r < Rows; ++r) {
            sums[r] = xsimd::fma(input, floats::load_unaligned(w + r * longest_run + k), sums[r]);
        }
    }
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
    alignas(64) float decoded[Rows * longest_run];
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

/// y = x W^T for a few inputs and rows [first, last) of W: every weight is decoded once and met by each input.
template <int Bits>
void gemv(packed_view const& w, index_t first, index_t last, float const* x, index_t x_stride, index_t tokens, float* y,
          index_t y_stride) noexcept {
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
