// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/tile_scale.hpp"

namespace {

using namespace detent;

TEST(tile_scale, bits_of_a_stored_scale) {
    EXPECT_EQ(bits_of(float_format::f16), 16);
    EXPECT_EQ(bits_of(float_format::bf16), 16);
    EXPECT_EQ(bits_of(float_format::f32), 32);
}

TEST(tile_scale, store_rounds_to_the_format) {
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

TEST(tile_scale, store_stays_within_the_normal_numbers_of_the_format) {
    float const infinity = std::numeric_limits<float>::infinity();
    for (float const tiny : {0.0F, 1e-44F, 0x1p-126F, 1e-9F}) {
        EXPECT_EQ(store(float_format::f16, tiny), 0x1p-14F);
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
