// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI::simd {

/// The sum of the products of `n` numbers of `a` and `b`, in an order that depends on `n` and the width of registers
/// only. Four sums at a time hide how long an addition takes.
template <class T> T dot(T const* a, T const* b, index_t n) noexcept {
    using batch = xsimd::batch<T>;
    constexpr auto width = static_cast<index_t>(batch::size);
    batch sums[4] = {batch(T{0}), batch(T{0}), batch(T{0}), batch(T{0})};
    index_t i = 0;
    for (; i + 4 * width <= n; i += 4 * width) {
        for (index_t k = 0; k < 4; ++k) {
            index_t const at = i + k * width;
            sums[k] = xsimd::fma(batch::load_unaligned(a + at), batch::load_unaligned(b + at), sums[k]);
        }
    }
    for (; i + width <= n; i += width) {
        sums[0] = xsimd::fma(batch::load_unaligned(a + i), batch::load_unaligned(b + i), sums[0]);
    }
    alignas(64) T lane[batch::size];
    ((sums[0] + sums[1]) + (sums[2] + sums[3])).store_aligned(lane);
    T sum = 0;
    for (T const part : lane) {
        sum += part;
    }
    for (; i < n; ++i) {
        sum += a[i] * b[i];
    }
    return sum;
}

/// y += factor x, for `n` numbers.
template <class T> void add_multiple(T factor, T const* x, T* y, index_t n) noexcept {
    using batch = xsimd::batch<T>;
    constexpr auto width = static_cast<index_t>(batch::size);
    batch const f(factor);
    index_t i = 0;
    for (; i + width <= n; i += width) {
        xsimd::fma(f, batch::load_unaligned(x + i), batch::load_unaligned(y + i)).store_unaligned(y + i);
    }
    for (; i < n; ++i) {
        y[i] += factor * x[i];
    }
}

} // namespace detent::inline DETENT_ABI::simd
