// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "detent/grid/grid.hpp"

namespace detent::inline DETENT_ABI {

/// Which of the largest codes of a floating-point format name no number.
enum class reserved {
    none,    ///< every code is a number, as LLM-FP4 has it
    nan,     ///< the largest magnitude is NaN, as in OCP E4M3
    infinity ///< the largest exponent holds infinity and NaN, as in OCP E5M2 and IEEE 754
};

/// Floating-point numbers of one sign bit, `E` exponent bits and `M` mantissa bits, with subnormals (LLM-FP4, section
/// 3). The exponent bias is the usual 2^(E-1) - 1: LLM-FP4's real-valued bias is a scale of 2^-bias beside the grid.
/// Rounds half to even. The code is sign, exponent, mantissa, from the highest bit down.
template <int E, int M, reserved Reserved = reserved::none>
    requires(E >= 1 && M >= 0 && E + M <= 7)
struct fp_grid {
    static constexpr int bits = 1 + E + M;
    static constexpr int exponent_bits = E;
    static constexpr int mantissa_bits = M;
    static constexpr int bias = (1 << (E - 1)) - 1;

    static constexpr float lowest() { return -highest(); }
    static constexpr float highest() { return magnitude(highest_magnitude); }

    static constexpr float decode(code c) {
        int const m = c & (sign - 1);
        if (m > highest_magnitude) {
            return std::numeric_limits<float>::quiet_NaN();
        }
        return c & sign ? -magnitude(m) : magnitude(m);
    }

    static code encode(float x) {
        float const a = std::min(std::abs(x), highest());
        int const exponent = static_cast<int>(std::bit_cast<std::uint32_t>(a) >> 23) - 127 + bias;
        int const field = std::max(1, exponent); // subnormals share the step of the first binade
        int const mantissa = static_cast<int>(std::nearbyint(a * power_of_two(bias + M - field)));
        // A mantissa that rounds up to 2^(M+1) carries into the exponent, where it belongs.
        return static_cast<code>((std::signbit(x) ? sign : 0) | (((field - 1) << M) + mantissa));
    }

    friend constexpr bool operator==(fp_grid, fp_grid) = default;

private:
    static constexpr int sign = 1 << (E + M);
    static constexpr int highest_magnitude =
        Reserved == reserved::infinity ? sign - 1 - (1 << M) : sign - 1 - (Reserved == reserved::nan ? 1 : 0);

    static constexpr float power_of_two(int n) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23);
    }

    static constexpr float magnitude(int m) {
        int const field = m >> M;
        int const mantissa = field == 0 ? m : (m & ((1 << M) - 1)) | (1 << M);
        return static_cast<float>(mantissa) * power_of_two(std::max(1, field) - M - bias);
    }
};

/// OCP 8-bit E4M3: 448 is the largest number, one magnitude is NaN.
using e4m3 = fp_grid<4, 3, reserved::nan>;
/// OCP 8-bit E5M2: 57344 is the largest number, the highest exponent is infinity and NaN.
using e5m2 = fp_grid<5, 2, reserved::infinity>;
/// OCP 4-bit E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6.
using e2m1 = fp_grid<2, 1>;

static_assert(e2m1::highest() == 6 && e4m3::highest() == 448 && e5m2::highest() == 57344);

} // namespace detent::inline DETENT_ABI
