// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/tile_scale.hpp"

namespace {

using namespace detent;

TEST(tile_scale, encode_divides_by_the_scale) {
    using grid = int_grid<8, zero::none>;
    // Ties of x / s which x * (1 / s) would miss.
    int differences = 0;
    for (int n = -100; n < 100; ++n) {
        for (float const s : {0.3F, 0.7F, 1.1F, 3.0F, 49.0F}) {
            float const x = (static_cast<float>(n) + 0.5F) * s;
            auto const expected = std::nearbyint(x / s);
            ASSERT_EQ(grid::decode(encode(grid{}, x, {s, 0})), expected);
            differences += expected != std::nearbyint(x * (1 / s)) ? 1 : 0;
        }
    }
    EXPECT_GT(differences, 0);
}

TEST(tile_scale, decode_subtracts_the_zero_point_and_scales) {
    EXPECT_EQ(decode(int_grid<4>{}, 11, {0.25F, 3}), 2.0F);
    EXPECT_EQ(decode(int_grid<4>{}, 0, {0.25F, 3}), -0.75F);
    EXPECT_EQ(decode(e2m1{}, 7, {0.5F, 0}), 3.0F);
    EXPECT_EQ(encode(int_grid<4>{}, 2.0F, {0.25F, 3}), 11);
    EXPECT_EQ(encode(e2m1{}, 3.0F, {0.5F, 0}), 7);
}

} // namespace
