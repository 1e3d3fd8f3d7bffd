// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "detent/simd/power.hpp"

namespace {

using namespace detent;

float power(float x, float exponent) { return simd::power(simd::floats(x), exponent).get(0); }

TEST(power, is_that_of_double_but_for_a_small_relative_error) {
    for (float const exponent : {1.0F, 1.5F, 2.0F, 2.4F, 3.0F, 4.0F}) {
        double worst = 0;
        for (float x = 1e-37F; x < 1e38F; x *= 1.00093F) {
            double const expected = std::pow(double{x}, double{exponent});
            if (expected > 0x1p-126 && expected < 0x1p127) {
                worst = std::max(worst, std::abs(power(x, exponent) / expected - 1));
            }
        }
        EXPECT_LT(worst, 2e-5) << exponent;
    }
}

TEST(power, every_lane_is_on_its_own) {
    float lane[simd::lanes];
    for (index_t i = 0; i < simd::lanes; ++i) {
        lane[i] = 0.3F * static_cast<float>(i);
    }
    simd::power(simd::floats::load_unaligned(lane), 2.4F).store_unaligned(lane);
    for (index_t i = 0; i < simd::lanes; ++i) {
        EXPECT_NEAR(lane[i], std::pow(0.3 * static_cast<double>(i), 2.4), 2e-5 * lane[i]);
    }
}

TEST(power, at_the_ends) {
    float const infinity = std::numeric_limits<float>::infinity();
    for (float const exponent : {1.0F, 2.4F, 4.0F}) {
        EXPECT_EQ(power(0, exponent), 0);
        EXPECT_EQ(power(infinity, exponent), infinity);
        EXPECT_EQ(power(std::numeric_limits<float>::quiet_NaN(), exponent), infinity);
    }
    EXPECT_EQ(power(1e30F, 2.4F), infinity);
    for (float x = 1e-44F; x < 1e-15F; x *= 1.1F) { // underflows without a sign or a jump
        float const small = power(x, 2.4F);
        EXPECT_GE(small, 0) << x;
        EXPECT_LE(small, std::max(0x1p-125F, 1.0001F * std::pow(x, 2.4F))) << x;
    }
}

} // namespace
