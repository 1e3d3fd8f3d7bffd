// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>

#include <xsimd/xsimd.hpp>

#include "detent/simd/nearest.hpp"

namespace detent::inline DETENT_ABI::simd {

/// x^exponent for x >= 0 and an exponent of at least 1, with a relative error below 2e-5; results below 2^-126 are
/// tiny, and 0^exponent is 0. Infinity and NaN become infinity.
inline floats power(floats x, float exponent) noexcept {
    ints const bits = std::bit_cast<ints>(x);
    floats const m = std::bit_cast<floats>((bits & ints(0x007FFFFF)) | ints(0x3F800000)); // in [1, 2)
    // Minimax polynomials: log2(m) within 2e-6, and 2^f for |f| <= 1/2 within 3e-6 of itself, 1 for f = 0.
    floats log = xsimd::fma(m, floats(-0.025691079F), floats(0.275148681F));
    log = xsimd::fma(m, log, floats(-1.26691792F));
    log = xsimd::fma(m, log, floats(3.28652811F));
    log = xsimd::fma(m, log, floats(-5.34198848F));
    log = xsimd::fma(m, log, floats(6.11296271F));
    log = xsimd::fma(m, log, floats(-3.04004017F));
    ints const exponent_bits = (bits - ints(0x3F800000)) & ints(~0x007FFFFF); // of x, times 2^23
    log = xsimd::fma(xsimd::to_float(exponent_bits), floats(0x1p-23F), log) * floats(exponent);
    log = xsimd::min(xsimd::max(log, floats(-127)), floats(128)); // whose powers come out as 0 and infinity
    floats const n = xsimd::nearbyint(log);
    floats const f = log - n;
    floats power = xsimd::fma(f, floats(0.00958302955F), floats(0.055906298F));
    power = xsimd::fma(f, power, floats(0.240240945F));
    power = xsimd::fma(f, power, floats(0.693124219F));
    power = xsimd::fma(f, power, floats(1));
    return std::bit_cast<floats>(std::bit_cast<ints>(power) + xsimd::to_int(n * floats(0x1p23F)));
}

} // namespace detent::inline DETENT_ABI::simd
