// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <numeric>

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"
#include "detent/simd/nearest.hpp"
#include "detent/simd/power.hpp"

namespace detent::inline DETENT_ABI::simd {

/// The sum of |x - rounded x|^exponent over `n` weights x that `round` would round to `set` with this scale and zero
/// point, with the error of `power`. It multiplies by 1 / scale, which is faster: ties that this rounds to the other
/// side have the same error.
template <class Set>
float rounding_error(Set const& set, index_t n, float const* weights, float scale, float zero,
                     float exponent) noexcept {
    auto const nearest = set.in_registers();
    auto const sum_of = [&](auto const& to_power) {
        auto const error = [&](float const* w) {
            code codes[lanes]; // not needed
            floats const x = floats::load_unaligned(w);
            floats const number = nearest(x * floats(1 / scale), floats(zero), codes);
            return to_power(xsimd::abs(x - (number - floats(zero)) * floats(scale)));
        };
        floats sums(0);
        index_t i = 0;
        for (; i + lanes <= n; i += lanes) {
            sums += error(weights + i);
        }
        float lane[lanes];
        float rest = 0;
        if (i < n) { // the rest, in a register's width
            std::fill(std::copy_n(weights + i, n - i, lane), lane + lanes, weights[i]);
            error(lane).store_unaligned(lane);
            rest = std::accumulate(lane, lane + (n - i), 0.0F);
        }
        sums.store_unaligned(lane);
        for (index_t half = lanes / 2; half > 0; half /= 2) {
            for (index_t j = 0; j < half; ++j) {
                lane[j] += lane[j + half];
            }
        }
        return lane[0] + rest;
    };
    return exponent == 2 ? sum_of([](floats e) { return e * e; })
                         : sum_of([exponent](floats e) { return power(e, exponent); });
}

} // namespace detent::inline DETENT_ABI::simd
