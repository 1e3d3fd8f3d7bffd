// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

#include "detent/core/half.hpp"

namespace {

using detent::bfloat16;
using detent::half;

template <class Narrow> Narrow from_bits(std::uint32_t bits) {
    Narrow h;
    h.bits = static_cast<std::uint16_t>(bits);
    return h;
}

/// The value of a finite narrow float from its fields.
double value_of(std::uint32_t bits, int mantissa_bits, int bias) {
    auto const fraction = static_cast<int>(bits & ((1U << mantissa_bits) - 1));
    auto const exponent = static_cast<int>((bits & 0x7FFFU) >> mantissa_bits);
    double const magnitude = exponent == 0
                                 ? std::ldexp(fraction, 1 - bias - mantissa_bits)
                                 : std::ldexp((1 << mantissa_bits) + fraction, exponent - bias - mantissa_bits);
    return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

struct format {
    std::uint32_t infinity;
    int mantissa_bits;
    int bias;
};
constexpr format binary16{0x7C00, 10, 15};
constexpr format brain16{0x7F80, 7, 127};

template <class Narrow> void expect_exact_values(format f) {
    for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
        auto const x = static_cast<float>(from_bits<Narrow>(bits));
        std::uint32_t const magnitude = bits & 0x7FFFU;
        if (magnitude > f.infinity) {
            ASSERT_TRUE(std::isnan(x)) << bits;
            continue;
        }
        ASSERT_EQ(std::signbit(x), (bits & 0x8000U) != 0) << bits;
        if (magnitude == f.infinity) {
            ASSERT_TRUE(std::isinf(x)) << bits;
        } else {
            ASSERT_EQ(static_cast<double>(x), value_of(bits, f.mantissa_bits, f.bias)) << bits;
        }
        ASSERT_EQ(Narrow(x).bits, bits);
    }
}

/// Between two neighbours: what is below the middle goes down, above it up, and the middle to the even one. The
/// neighbour of the largest finite value is where infinity would be if it were a number.
template <class Narrow> void expect_nearest_even(format f) {
    for (std::uint32_t bits = 0; bits < f.infinity; ++bits) {
        double const lower = value_of(bits, f.mantissa_bits, f.bias);
        double const upper = value_of(bits + 1, f.mantissa_bits, f.bias);
        auto const middle = static_cast<float>((lower + upper) / 2);
        if (static_cast<double>(middle) != (lower + upper) / 2) {
            continue; // bfloat16 below the smallest float; there is nothing to round
        }
        std::uint32_t const even = bits % 2 == 0 ? bits : bits + 1;
        ASSERT_EQ(Narrow(middle).bits, even);
        ASSERT_EQ(Narrow(-middle).bits, even | 0x8000U);
        ASSERT_EQ(Narrow(std::nextafter(middle, 0.0F)).bits, bits);
        ASSERT_EQ(Narrow(std::nextafter(middle, std::numeric_limits<float>::infinity())).bits, bits + 1);
    }
}

TEST(half, every_value_is_exact_and_comes_back) { expect_exact_values<half>(binary16); }
TEST(bfloat16, every_value_is_exact_and_comes_back) { expect_exact_values<bfloat16>(brain16); }

TEST(half, rounds_to_nearest_even) { expect_nearest_even<half>(binary16); }
TEST(bfloat16, rounds_to_nearest_even) { expect_nearest_even<bfloat16>(brain16); }

TEST(half, overflows_to_infinity) {
    EXPECT_EQ(half(65519.99F).bits, 0x7BFF);
    EXPECT_EQ(half(65520.0F).bits, 0x7C00);
    EXPECT_EQ(half(std::numeric_limits<float>::max()).bits, 0x7C00);
    EXPECT_EQ(half(-std::numeric_limits<float>::infinity()).bits, 0xFC00);
}

TEST(bfloat16, overflows_to_infinity) {
    EXPECT_EQ(bfloat16(std::numeric_limits<float>::max()).bits, 0x7F80);
    EXPECT_EQ(bfloat16(-std::numeric_limits<float>::infinity()).bits, 0xFF80);
}

TEST(half, not_a_number_stays_one) {
    // The lowest mantissa bit alone would be lost by truncation, and leave an infinity.
    for (std::uint32_t const bits : {0x7F800001U, 0x7FC00000U, 0xFFFFFFFFU}) {
        auto const nan = std::bit_cast<float>(bits);
        EXPECT_TRUE(std::isnan(static_cast<float>(half(nan)))) << bits;
        EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(nan)))) << bits;
    }
}

TEST(half, converts_at_compile_time) {
    static_assert(static_cast<float>(half(0.333251953125F)) == 0.333251953125F);
    static_assert(half(1.0F).bits == 0x3C00);
    static_assert(bfloat16(1.0F).bits == 0x3F80);
}

} // namespace
