// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "grid/grid_properties.hpp"
#include "grid/own_grid.hpp"

namespace {

using namespace detent;
using test::five;

struct squares_table {
    static constexpr auto values = [] {
        std::array<float, 256> v{};
        for (int i = 0; i < 256; ++i) {
            v[static_cast<std::size_t>(i)] =
                static_cast<float>(i < 128 ? -(128 - i) * (128 - i) : (i - 128) * (i - 128));
        }
        return v;
    }();
};
struct two_values {
    static constexpr std::array<float, 2> values{-1, 3};
};

TEST(codebook_grid, encodes_the_nearest_value) {
    test::expect_grid(nf4{});
    test::expect_grid(ternary{});
    test::expect_grid(five{});
    test::expect_grid(codebook_grid<squares_table>{});
    test::expect_grid(codebook_grid<two_values>{});
}

TEST(codebook_grid, has_as_few_bits_as_its_values_need) {
    EXPECT_EQ(codebook_grid<two_values>::bits, 1);
    EXPECT_EQ(ternary::bits, 2);
    EXPECT_EQ(five::bits, 3);
    EXPECT_EQ(nf4::bits, 4);
    EXPECT_EQ(codebook_grid<squares_table>::bits, 8);
}

TEST(codebook_grid, codes_without_a_value_decode_to_nan) {
    EXPECT_EQ(five::decode(4), 2.5F);
    for (int c = 5; c < 8; ++c) {
        EXPECT_TRUE(std::isnan(five::decode(static_cast<code>(c))));
    }
    EXPECT_TRUE(std::isnan(ternary::decode(3)));
}

TEST(codebook_grid, ties_go_to_the_lower_value) {
    EXPECT_EQ(ternary::decode(ternary::encode(0.5F)), 0);
    EXPECT_EQ(ternary::decode(ternary::encode(-0.5F)), -1);
    EXPECT_EQ(codebook_grid<two_values>::encode(1), 0);
}

TEST(codebook_grid, nf4_is_the_table_of_qlora) {
    // Normal quantiles at the midpoints of equal probabilities, 8 below zero and 9 from zero on, over the largest.
    EXPECT_EQ(nf4::decode(0), -1);
    EXPECT_EQ(nf4::decode(7), 0);
    EXPECT_EQ(nf4::decode(15), 1);
    auto const probability = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
    double const offset = 0.9677083;
    double low = 0;
    double high = 10;
    for (int i = 0; i < 100; ++i) {
        double const middle = 0.5 * (low + high);
        (probability(middle) < offset ? low : high) = middle;
    }
    for (int c = 0; c < 16; ++c) {
        double const p = c < 7 ? 1 - (offset - (offset - 0.5) * c / 7) : 0.5 + (offset - 0.5) * (c - 7) / 8;
        EXPECT_NEAR(probability(nf4::decode(static_cast<code>(c)) * low), p, 1e-6) << c;
    }
}

} // namespace
