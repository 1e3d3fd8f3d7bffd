// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

// With -ffinite-math-only compilers take std::isfinite for true and x != x for false; they cannot where the bits are
// asked.

/// Whether `x` is NaN, by its bits.
constexpr bool is_nan(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU) > 0x7F800000U; }

/// Whether `x` is neither infinite nor NaN, by its bits.
constexpr bool is_finite(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7F800000U) != 0x7F800000U; }
/// Whether `x` is neither infinite nor NaN, by its bits.
constexpr bool is_finite(double x) {
    constexpr std::uint64_t exponent = std::uint64_t{0x7FF} << 52;
    return (std::bit_cast<std::uint64_t>(x) & exponent) != exponent;
}

/// A cost as searches compare it: infinite where it is no finite number. NaN is neither less nor greater than another,
/// so that it would win where it comes first.
constexpr double comparable_cost(double cost) {
    return is_finite(cost) ? cost : std::numeric_limits<double>::infinity();
}

} // namespace detent::inline DETENT_ABI
