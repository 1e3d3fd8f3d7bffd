// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>

#include <xsimd/xsimd.hpp>

#include "detent/core/contract.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI::simd {

/// Whether `n` is a power of two, 1 among them.
constexpr bool is_power_of_two(index_t n) { return n > 0 && (n & (n - 1)) == 0; }

/// Replaces eight numbers by their Walsh-Hadamard transform, not normalized.
template <class T> void hadamard_of_eight(T* x) noexcept {
    T const a[] = {x[0] + x[1], x[0] - x[1], x[2] + x[3], x[2] - x[3],
                   x[4] + x[5], x[4] - x[5], x[6] + x[7], x[6] - x[7]};
    T const b[] = {a[0] + a[2], a[1] + a[3], a[0] - a[2], a[1] - a[3],
                   a[4] + a[6], a[5] + a[7], a[4] - a[6], a[5] - a[7]};
    for (int i = 0; i < 4; ++i) {
        x[i] = b[i] + b[i + 4];
        x[i + 4] = b[i] - b[i + 4];
    }
}

/// Multiplies each `width` consecutive of `n` numbers by the orthonormal Walsh-Hadamard matrix of that size, in place:
/// element (i, j) is width^-1/2 times -1 to the number of ones that i and j have in common as binary numbers. It is its
/// own inverse. `width` is a power of two that divides `n`. It takes log2(width) additions for each number, in the same
/// order on every machine.
template <class T> void hadamard(T* x, index_t n, index_t width) noexcept {
    DETENT_EXPECTS(is_power_of_two(width) && n % width == 0);
    using batch = xsimd::batch<T>;
    constexpr index_t at_once = static_cast<index_t>(batch::size);
    for (T* const end = x + n; x < end; x += width) {
        index_t step = 1; // between the numbers that are added and subtracted next
        if (width >= 8) {
            for (index_t i = 0; i < width; i += 8) {
                hadamard_of_eight(x + i);
            }
            step = 8;
        }
        for (; step < width; step *= 2) {
            for (index_t begin = 0; begin < width; begin += 2 * step) {
                T* const low = x + begin;
                T* const high = low + step;
                index_t i = 0;
                for (; i + at_once <= step; i += at_once) {
                    auto const a = batch::load_unaligned(low + i);
                    auto const b = batch::load_unaligned(high + i);
                    (a + b).store_unaligned(low + i);
                    (a - b).store_unaligned(high + i);
                }
                for (; i < step; ++i) {
                    T const a = low[i];
                    T const b = high[i];
                    low[i] = a + b;
                    high[i] = a - b;
                }
            }
        }
        T const normal = T(1) / std::sqrt(static_cast<T>(width));
        std::transform(x, x + width, x, [normal](T v) { return v * normal; });
    }
}

} // namespace detent::inline DETENT_ABI::simd
