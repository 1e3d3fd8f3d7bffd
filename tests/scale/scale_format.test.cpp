// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "detent/scale/scale_format.hpp"
#include "scale/infinity.hpp"

namespace {

using namespace detent;
using detent::test::infinity;

TEST(scale_format, bits_of_a_stored_scale) {
    EXPECT_EQ(bits_of(float_format::f16), 16);
    EXPECT_EQ(bits_of(float_format::bf16), 16);
    EXPECT_EQ(bits_of(float_format::f32), 32);
    EXPECT_EQ(bits_of(scale_format(float_format::f16)), 16);
    EXPECT_EQ(bits_of(scale_format(float_format::bf16)), 16);
    EXPECT_EQ(bits_of(scale_format(float_format::f32)), 32);
    EXPECT_EQ(bits_of(scale_kind::e8m0), 8);
    EXPECT_EQ(bits_of(scale_kind::ue4m3), 8);
}

TEST(scale_format, store_rounds_to_the_format) {
    for (float const x : {0.001F, 0.1F, 1.0F / 3, 1.0F, 3.14159F, 1000.7F, 60000.0F}) {
        float const f16 = store(float_format::f16, x);
        EXPECT_EQ(f16, static_cast<float>(half{x}));
        EXPECT_NEAR(f16, x, x * 0x1p-11);
        float const bf16 = store(float_format::bf16, x);
        EXPECT_EQ(bf16, static_cast<float>(bfloat16{x}));
        EXPECT_NEAR(bf16, x, x * 0x1p-8);
        EXPECT_EQ(store(float_format::f32, x), x);
    }
}

TEST(scale_format, store_stays_within_the_limits_of_the_format) {
    for (float const tiny : {0.0F, 1e-44F, 0x1p-126F, 1e-9F, 0x1p-25F, 0x1p-24F, 0x1.7p-24F}) {
        EXPECT_EQ(store(float_format::f16, tiny), 0x1p-24F);
    }
    for (float const tiny : {0.0F, 1e-44F, 0x1p-127F, 0x1p-126F}) {
        EXPECT_EQ(store(float_format::bf16, tiny), 0x1p-126F);
        EXPECT_EQ(store(float_format::f32, tiny), 0x1p-126F);
    }
    for (float const huge : {65504.0F, 65520.0F, 1e30F, infinity}) {
        EXPECT_EQ(store(float_format::f16, huge), 65504.0F);
    }
    for (float const huge : {0x1.FEp127F, 0x1.FFp127F, std::numeric_limits<float>::max(), infinity}) {
        EXPECT_EQ(store(float_format::bf16, huge), 0x1.FEp127F);
    }
    EXPECT_EQ(store(float_format::f32, 1e38F), 1e38F);
    EXPECT_EQ(store(float_format::f32, infinity), std::numeric_limits<float>::max());
}

TEST(scale_format, subnormal_halves_are_scales) {
    for (int bits = 1; bits < 0x7C00; ++bits) { // every positive number
        half h;
        h.bits = static_cast<std::uint16_t>(bits);
        auto const scale = static_cast<float>(h);
        ASSERT_EQ(store(float_format::f16, scale), scale);
    }
    for (float scale = 0x1p-24F; scale < 0x1p-14F; scale *= 1.0173F) { // multiples of the smallest
        EXPECT_EQ(store(float_format::f16, scale), 0x1p-24F * std::nearbyint(scale * 0x1p24F)) << scale;
    }
}

TEST(scale_format, the_limits_are_stored_numbers_and_all_others_lie_between) {
    std::vector<scale_format> formats{scale_kind::f16, scale_kind::bf16, scale_kind::f32, scale_kind::e8m0};
    for (float const unit : {1.0F, 0.3F, 1.0F / 2688, unit_limits::lowest, unit_limits::highest}) {
        formats.push_back({scale_kind::ue4m3, unit});
    }
    for (scale_format const format : formats) {
        scale_limits const limits = limits_of(format);
        EXPECT_EQ(store(format, limits.smallest), limits.smallest);
        EXPECT_EQ(store(format, limits.largest), limits.largest);
        EXPECT_EQ(store(format, 0), limits.smallest);
        EXPECT_EQ(store(format, std::nextafter(limits.smallest, 0.0F)), limits.smallest);
        EXPECT_EQ(store(format, infinity), limits.largest);
        EXPECT_GT(store(format, 2 * limits.smallest), limits.smallest);
        EXPECT_LT(store(format, limits.largest / 2), limits.largest);
    }
}

TEST(scale_format, is_named_by_a_format_of_floats_too) {
    EXPECT_EQ(scale_format{}, float_format::f16);
    EXPECT_EQ(scale_format(scale_kind::bf16), float_format::bf16);
    EXPECT_EQ(scale_format(scale_kind::f32), float_format::f32);
    EXPECT_NE(scale_format(scale_kind::e8m0), float_format::f16);
    EXPECT_NE(scale_format(scale_kind::ue4m3), scale_format(scale_kind::ue4m3, 2));
    EXPECT_TRUE(scale_format(scale_kind::ue4m3).has_unit());
    EXPECT_FALSE(scale_format(scale_kind::e8m0).has_unit());
    EXPECT_FALSE(scale_format{}.has_unit());
}

TEST(scale_format, e8m0_bytes_are_powers_of_two) {
    scale_format const format = scale_kind::e8m0;
    for (int byte = 0; byte < 255; ++byte) {
        auto const b = static_cast<std::uint8_t>(byte);
        float const scale = scale_of(format, b);
        EXPECT_EQ(scale, std::ldexp(1.0F, byte - 127));
        EXPECT_EQ(store(format, scale), scale);
        EXPECT_EQ(byte_of(format, scale), b);
    }
    EXPECT_TRUE(std::isnan(scale_of(format, 255)));
}

TEST(scale_format, e8m0_rounds_up) {
    scale_format const format = scale_kind::e8m0;
    for (int n = -126; n < 127; ++n) {
        float const power = std::ldexp(1.0F, n);
        EXPECT_EQ(store(format, std::nextafter(power, 0.0F)), power);
        EXPECT_EQ(store(format, std::nextafter(power, infinity)), 2 * power);
        EXPECT_EQ(store(format, 1.5F * power), 2 * power);
    }
    for (float const tiny : {0.0F, 1e-45F, 0x1p-128F, 0x1p-127F}) {
        EXPECT_EQ(store(format, tiny), 0x1p-127F);
    }
    EXPECT_EQ(store(format, 0x1.8p-127F), 0x1p-126F);
    for (float const huge : {0x1p127F, 0x1.8p127F, std::numeric_limits<float>::max(), infinity}) {
        EXPECT_EQ(store(format, huge), 0x1p127F);
    }
}

TEST(scale_format, e4m3_bytes_are_positive_numbers_of_a_unit) {
    for (float const unit : {1.0F, 0.3F, 1.0F / 2688, 12345.6F, unit_limits::lowest, unit_limits::highest}) {
        scale_format const format{scale_kind::ue4m3, unit};
        std::set<float> scales;
        for (int byte = 0; byte < 256; ++byte) {
            auto const b = static_cast<std::uint8_t>(byte);
            float const scale = scale_of(format, b);
            if (byte == 0 || byte >= 0x7F) { // zero, NaN, negative
                EXPECT_TRUE(std::isnan(scale)) << byte;
                continue;
            }
            double const number = byte < 8 ? std::ldexp(byte, -9) : std::ldexp(1 + byte % 8 / 8.0, byte / 8 - 7);
            EXPECT_EQ(scale, static_cast<float>(number) * unit);
            EXPECT_GE(scale, std::numeric_limits<float>::min());
            EXPECT_TRUE(std::isfinite(scale));
            EXPECT_EQ(store(format, scale), scale) << byte;
            EXPECT_EQ(byte_of(format, scale), b);
            scales.insert(scale);
        }
        EXPECT_EQ(scales.size(), 126U);
        EXPECT_EQ(*scales.rbegin(), 448 * unit);
        // The nearest of them, and none is zero.
        for (double x = 0x1p-9; x < 448; x *= 1.0173) {
            float const scale = static_cast<float>(x) * unit;
            float nearest = *scales.begin();
            for (float const s : scales) {
                nearest = std::abs(s - scale) < std::abs(nearest - scale) ? s : nearest;
            }
            EXPECT_EQ(store(format, scale), nearest) << x;
        }
        EXPECT_EQ(store(format, 0), 0x1p-9F * unit);
        EXPECT_EQ(store(format, 0x1p-11F * unit), 0x1p-9F * unit);
        EXPECT_EQ(store(format, infinity), 448 * unit);
    }
}

} // namespace
