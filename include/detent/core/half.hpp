// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// IEEE 754 binary16, for storage; convert to float to compute.
struct half {
    std::uint16_t bits = 0;

    constexpr half() = default;

    /// Rounds to nearest, ties to even; overflows to infinity.
    constexpr explicit half(float value) {
        auto const u = std::bit_cast<std::uint32_t>(value);
        auto const sign = static_cast<std::uint16_t>((u >> 16) & 0x8000U);
        std::uint32_t const magnitude = u & 0x7FFFFFFFU;
        if (magnitude >= 0x7F800000U) { // infinity or NaN (kept quiet)
            bits = static_cast<std::uint16_t>(sign | (magnitude > 0x7F800000U ? 0x7E00U : 0x7C00U));
        } else if (magnitude >= 0x38800000U) { // normal: drop 13 bits; a carry may reach infinity, as it should
            std::uint32_t const rounded = magnitude + 0x0FFFU + ((magnitude >> 13) & 1U);
            bits = static_cast<std::uint16_t>(sign |
                                              (rounded >= 0x47800000U ? 0x7C00U : (rounded - 0x38000000U) >> 13));
        } else { // subnormal: adding 0.5 lets the float adder round at 2^-24
            float const aligned = std::bit_cast<float>(magnitude) + 0.5F;
            bits = static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3F000000U));
        }
    }

    constexpr explicit operator float() const {
        std::uint32_t const sign = (bits & 0x8000U) << 16;
        std::uint32_t const magnitude = bits & 0x7FFFU;
        if (magnitude >= 0x7C00U) {
            return std::bit_cast<float>(sign | 0x7F800000U | ((magnitude & 0x3FFU) << 13));
        }
        if (magnitude >= 0x0400U) {
            return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
        }
        float const subnormal = static_cast<float>(magnitude) * 0x1p-24F;
        return sign != 0 ? -subnormal : subnormal;
    }
};

/// bfloat16, the upper half of a float, for storage.
struct bfloat16 {
    std::uint16_t bits = 0;

    constexpr bfloat16() = default;

    /// Rounds to nearest, ties to even.
    constexpr explicit bfloat16(float value) {
        auto const u = std::bit_cast<std::uint32_t>(value);
        bool const nan = (u & 0x7FFFFFFFU) > 0x7F800000U;
        bits = static_cast<std::uint16_t>(nan ? (u >> 16) | 0x40U : (u + 0x7FFFU + ((u >> 16) & 1U)) >> 16);
    }

    constexpr explicit operator float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// How numbers that are no codes are stored: scales and weak columns.
enum class float_format { f16, bf16, f32 };

/// The number of bits of one stored number.
constexpr int bits_of(float_format format) { return format == float_format::f32 ? 32 : 16; }

} // namespace detent::inline DETENT_ABI
