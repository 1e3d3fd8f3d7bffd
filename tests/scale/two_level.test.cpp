// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/half.hpp"
#include "detent/scale/two_level.hpp"

namespace detent {
namespace {

std::vector<float> random_weights(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.05F);
    std::vector<float> w(two_level_format::block);
    for (float& x : w) {
        x = normal(random);
    }
    return w;
}

/// The squared error of rounding to the nearest number, the slow way.
double error_of(two_level_format const& f, float const* w, two_level_scale s) {
    double sum = 0;
    for (index_t i = 0; i < f.tile; ++i) {
        double least = std::numeric_limits<double>::infinity();
        for (int n = f.lowest_number(); n <= f.highest_number(); ++n) {
            double const e = double{w[i]} - (double{s.scale} * n - s.least);
            least = std::min(least, e * e);
        }
        sum += least;
    }
    return sum;
}

TEST(fit_two_levels, makes_integers_times_an_f16_number) {
    for (auto const& format : two_level_formats) {
        auto const w = random_weights(3);
        std::array<two_level_scale, 16> scales;
        fit_two_levels(format, w.data(), nullptr, scales);
        float largest = 0, most = 0;
        for (index_t i = 0; i < format.tiles(); ++i) {
            auto const& s = scales[static_cast<std::size_t>(i)];
            largest = std::abs(s.scale) > std::abs(largest) ? s.scale : largest;
            most = std::max(most, s.least);
            EXPECT_NE(s.scale, 0);
            EXPECT_TRUE(format.shifted || s.least == 0);
        }
        auto const is_unit = [&](float unit, auto const& number) {
            bool all = static_cast<float>(half(unit)) == unit && unit != 0;
            for (index_t i = 0; all && i < format.tiles(); ++i) {
                float const factor = number(scales[static_cast<std::size_t>(i)]) / unit;
                all = factor == std::nearbyint(factor) && factor <= static_cast<float>(format.highest) &&
                      factor >= static_cast<float>(format.lowest);
            }
            return all;
        };
        bool found = false, found_least = !format.shifted;
        for (int n = format.lowest; n <= format.highest; ++n) {
            auto const part = static_cast<float>(n);
            found = found || (n != 0 && is_unit(largest / part, [](auto const& s) { return s.scale; }));
            found_least = found_least || (n > 0 && is_unit(most / part, [](auto const& s) { return s.least; }));
        }
        EXPECT_TRUE(found) << format.bits;
        EXPECT_TRUE(found_least) << format.bits;
    }
}

TEST(fit_two_levels, is_better_than_the_whole_range) {
    for (auto const& format : two_level_formats) {
        auto const w = random_weights(5);
        std::array<two_level_scale, 16> scales;
        fit_two_levels(format, w.data(), nullptr, scales);
        double error = 0, whole = 0, best = 0;
        for (index_t i = 0; i < format.tiles(); ++i) {
            float const* const x = w.data() + i * format.tile;
            error += error_of(format, x, scales[static_cast<std::size_t>(i)]);
            auto const [low, high] = std::minmax_element(x, x + format.tile);
            float const size = std::max(*high, -*low);
            two_level_scale const range =
                format.shifted ? two_level_scale{(*high - *low) / static_cast<float>(format.highest_number()), -*low}
                               : two_level_scale{size / static_cast<float>(format.highest_number()), 0};
            whole += error_of(format, x, range);
            double least = std::numeric_limits<double>::infinity(); // of many scales and shifts
            for (int a = 50; a <= 110; ++a) {
                for (int b = 50; b <= 110; b += format.shifted ? 1 : 100) {
                    float const wide = static_cast<float>(a) / 100, low_part = static_cast<float>(b) / 100;
                    for (float const sign : {1.0F, format.shifted ? 1.0F : -1.0F}) {
                        least =
                            std::min(least, error_of(format, x, {sign * range.scale * wide, range.least * low_part}));
                    }
                }
            }
            best += least;
        }
        EXPECT_LT(error, 0.97 * whole) << format.bits; // though scales have two levels only
        EXPECT_LT(error, 1.12 * best) << format.bits;
    }
}

TEST(fit_two_levels, follows_importance) {
    two_level_format const& format = two_level_formats[2];
    auto const w = random_weights(7);
    std::vector<float> importance(w.size(), 1e-3F);
    for (std::size_t i = 0; i < w.size(); i += 32) { // two of each tile
        importance[i] = importance[i + 9] = 1;
    }
    std::array<two_level_scale, 16> alike, chosen;
    fit_two_levels(format, w.data(), nullptr, alike);
    fit_two_levels(format, w.data(), importance.data(), chosen);
    double error = 0, other = 0;
    for (index_t i = 0; i < 8; ++i) {
        two_level_tile const tile(format, w.data() + i * 32, importance.data() + i * 32);
        error += tile.error(chosen[static_cast<std::size_t>(i)]);
        other += tile.error(alike[static_cast<std::size_t>(i)]);
    }
    EXPECT_LT(error, 0.7 * other);
}

TEST(fit_two_levels, of_zeros_and_of_one_number) {
    for (auto const& format : two_level_formats) {
        for (float const number : {0.0F, 0.25F, -0.25F}) {
            std::vector<float> const w(two_level_format::block, number);
            std::array<two_level_scale, 16> scales;
            fit_two_levels(format, w.data(), nullptr, scales);
            for (index_t i = 0; i < format.tiles(); ++i) {
                auto const s = scales[static_cast<std::size_t>(i)];
                EXPECT_NE(s.scale, 0);
                EXPECT_NEAR(error_of(format, w.data(), s), 0, 1e-5) << format.bits << " " << number;
            }
        }
    }
}

} // namespace
} // namespace detent
