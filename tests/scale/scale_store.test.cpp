// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/scale/scale_store.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

TEST(scale_store, has_a_place_for_every_tile) {
    scale_store const s({5, 300}, {2, 128}, float_format::bf16, true);
    EXPECT_EQ(s.tiles, (extents{3, 3}));
    EXPECT_EQ(s.format, float_format::bf16);
    EXPECT_EQ(s.scales.size(), 9U);
    EXPECT_EQ(s.zeros.size(), 9U);
    EXPECT_EQ(scale_store({4, 256}, {2, 128}, float_format::f16, true).tiles, (extents{2, 2}));
}

TEST(scale_store, without_zeros_they_are_zero) {
    scale_store s({2, 2}, {1, 1}, float_format::f16, false);
    EXPECT_TRUE(s.zeros.empty());
    s.set(1, 0, {0.5F, 3});
    EXPECT_EQ(s.at(1, 0), (tile_scale{0.5F, 0}));
}

TEST(scale_store, keeps_every_tile_apart) {
    scale_store s({3, 5}, {1, 2}, float_format::f16, true);
    for (index_t r = 0; r < 3; ++r) {
        for (index_t c = 0; c < 3; ++c) {
            s.set(r, c, {static_cast<float>(10 * r + c), static_cast<float>(r - c)});
        }
    }
    for (index_t r = 0; r < 3; ++r) {
        for (index_t c = 0; c < 3; ++c) {
            EXPECT_EQ(s.at(r, c), (tile_scale{static_cast<float>(10 * r + c), static_cast<float>(r - c)}));
        }
    }
    EXPECT_EQ(s.scales, (std::vector<float>{0, 1, 2, 10, 11, 12, 20, 21, 22}));
    scale_store other = s;
    EXPECT_EQ(other, s);
    other.set(2, 1, {21, 0});
    EXPECT_NE(other, s);
    scale_store const of_bytes({3, 5}, {1, 2}, {scale_kind::ue4m3, 0.25F}, false);
    EXPECT_EQ(of_bytes, scale_store({3, 5}, {1, 2}, {scale_kind::ue4m3, 0.25F}, false));
    EXPECT_NE(of_bytes, scale_store({3, 5}, {1, 2}, {scale_kind::ue4m3, 0.5F}, false));
    EXPECT_NE(of_bytes, scale_store({3, 5}, {1, 2}, scale_kind::e8m0, false));
}

TEST(scale_store, tiles_have_weights_unless_there_are_none) {
    EXPECT_EQ(failure_message([] {
                  scale_store({4, 4}, {1, 0}, float_format::f32, false);
              }),
              "scales: are for tiles without weights");
    EXPECT_EQ(failure_message([] {
                  scale_store({4, 4}, {-1, 2}, float_format::f32, false);
              }),
              "scales: are for tiles without weights");
    EXPECT_EQ(scale_store({0, 4}, {0, 0}, float_format::f32, false).tiles, extents{});
}

} // namespace
