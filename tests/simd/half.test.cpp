// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/half.hpp"

namespace {

using namespace detent;

/// Loads all 2^16 patterns from addresses that are no multiple of 2 and compares them with the scalar conversion.
template <class T, class Load> void expect_conversions(Load const& load) {
    constexpr auto lanes = xsimd::batch<float>::size;
    std::vector<std::uint8_t> bytes(1 + 2 * 0x10000);
    for (std::uint32_t i = 0; i < 0x10000; ++i) {
        auto const pattern = static_cast<std::uint16_t>(i);
        std::memcpy(bytes.data() + 1 + 2 * i, &pattern, 2);
    }
    float values[lanes];
    for (std::uint32_t i = 0; i < 0x10000; i += static_cast<std::uint32_t>(lanes)) {
        load(bytes.data() + 1 + 2 * i).store_unaligned(values);
        for (std::uint32_t j = 0; j < lanes; ++j) {
            T number;
            number.bits = static_cast<std::uint16_t>(i + j);
            auto const expected = static_cast<float>(number);
            if (std::isnan(expected)) {
                ASSERT_TRUE(std::isnan(values[j])) << i + j;
            } else {
                ASSERT_EQ(std::bit_cast<std::uint32_t>(values[j]), std::bit_cast<std::uint32_t>(expected)) << i + j;
            }
        }
    }
}

TEST(to_float, equals_the_scalar_conversion) {
    for (std::uint32_t i = 0; i < 0x10000; ++i) {
        half x;
        x.bits = static_cast<std::uint16_t>(i);
        float const expected = static_cast<float>(x);
        if (std::isnan(expected)) {
            ASSERT_TRUE(std::isnan(simd::to_float(x))) << i;
        } else {
            ASSERT_EQ(std::bit_cast<std::uint32_t>(simd::to_float(x)), std::bit_cast<std::uint32_t>(expected)) << i;
        }
    }
}

TEST(load_halves, equals_the_scalar_conversion) { expect_conversions<half>(simd::load_halves); }
TEST(load_bfloats, equals_the_scalar_conversion) { expect_conversions<bfloat16>(simd::load_bfloats); }
TEST(load_as_floats, equals_the_scalar_conversion) {
    expect_conversions<half>(simd::load_as_floats<half>);
    expect_conversions<bfloat16>(simd::load_as_floats<bfloat16>);
}

} // namespace
