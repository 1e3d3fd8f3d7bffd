// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/scale/learned_clip.hpp"

namespace {

using namespace detent;

/// The width of the range of a tile whose smallest and largest numbers are these, as clips leave it.
double width(double least, double most, double low, double high, bool has_zero) {
    auto const kept = [](double logit) { return 1 / (1 + std::exp(-logit)); };
    double const from = std::min(0.0, least) * kept(low);
    double const to = std::max(0.0, most) * kept(high);
    return has_zero ? to - from : 2 * std::max(to, -from);
}

TEST(slopes_of_range, are_those_of_its_width) {
    constexpr double h = 1e-6;
    constexpr double per_width = -1.7;
    for (bool const has_zero : {false, true}) {
        for (auto const& [least, most] :
             {std::pair{-2.0, 3.0}, {-3.0, 2.0}, {-0.5, 0.0}, {0.0, 0.7}, {0.2, 0.9}, {-4.0, -1.0}, {0.0, 0.0}}) {
            for (auto const& [low, high] : {std::pair{4.0, 4.0}, {-1.0, 2.0}, {1.5, -0.5}}) {
                SCOPED_TRACE(testing::Message()
                             << has_zero << ", " << least << " to " << most << ", " << low << ", " << high);
                learned_clip<double> clip = learned_clip<double>::of(1, 1);
                clip.low(0, 0) = low;
                clip.high(0, 0) = high;
                auto const slopes = slopes_of_range(per_width, std::min(0.0, least), std::max(0.0, most),
                                                    clip.kept_low(0, 0), clip.kept_high(0, 0), has_zero);
                auto const difference = [&](double d_least, double d_most, double d_low, double d_high) {
                    return per_width *
                           (width(least + d_least, most + d_most, low + d_low, high + d_high, has_zero) -
                            width(least - d_least, most - d_most, low - d_low, high - d_high, has_zero)) /
                           (2 * h);
                };
                EXPECT_NEAR(slopes.clip_low, difference(0, 0, h, 0), 1e-6);
                EXPECT_NEAR(slopes.clip_high, difference(0, 0, 0, h), 1e-6);
                if (least < 0) {
                    EXPECT_NEAR(slopes.lowest, difference(h, 0, 0, 0), 1e-6);
                }
                if (most > 0) {
                    EXPECT_NEAR(slopes.highest, difference(0, h, 0, 0), 1e-6);
                }
            }
        }
    }
}

TEST(learned_clip, keeps_nearly_all_at_first) {
    auto const clip = learned_clip<float>::of(2, 3);
    EXPECT_EQ(clip.low.rows(), 2);
    EXPECT_EQ(clip.high.cols(), 3);
    EXPECT_NEAR(clip.kept_low(1, 2), 0.982, 1e-3);
    EXPECT_NEAR(clip.kept_high(0, 0), 0.982, 1e-3);
    EXPECT_EQ(learned_clip<double>::of(1, 1, 0).kept_low(0, 0), 0.5);
}

TEST(reach_of, is_half_a_step_beyond_the_numbers) {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    interval const integers = reach_of({0, 1, 2, 3});
    EXPECT_EQ(integers.low, -0.5F);
    EXPECT_EQ(integers.high, 3.5F);
    interval const floats = reach_of({0, 0.5F, 4, 6, -0.0F, -0.5F, -4, -6, nan}); // in any order, zeros twice
    EXPECT_EQ(floats.low, -7);
    EXPECT_EQ(floats.high, 7);
}

} // namespace
