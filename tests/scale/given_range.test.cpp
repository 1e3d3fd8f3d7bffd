// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/given_range.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

static_assert(PlacedRangeFor<given_range, int_grid<4>> && PlacedRangeFor<given_range, e2m1>);

/// Scales 1, 2, 3, ... and zero points 0, 1, 2, ... of 2 x 3 tiles.
given_range counted() {
    given_range given{.scales = {{8, 48}, {4, 16}, float_format::f32, true}, .tile = {4, 16}};
    for (index_t i = 0; i < 6; ++i) {
        given.scales.set(i / 3, i % 3, {static_cast<float>(i + 1), static_cast<float>(i)});
    }
    return given;
}

TEST(given_range, answers_what_was_given_for_a_place) {
    given_range const given = counted();
    matrix const tile = matrix::Constant(4, 16, 1e6F); // whatever is in it
    auto const at = [&](index_t row, index_t col) {
        return given.fit(int_grid<4>{}, tile, float_format::f16, {row, col});
    };
    EXPECT_EQ(at(0, 0), (tile_scale{1, 0}));
    EXPECT_EQ(at(0, 32), (tile_scale{3, 2}));
    EXPECT_EQ(at(4, 16), (tile_scale{5, 4}));
    EXPECT_EQ(at(5, 47), (tile_scale{6, 5})); // where a solver begins within a tile
}

TEST(given_range, complains_of_places_and_scales_that_there_are_not) {
    given_range given = counted();
    auto const complaint = [&](index_t row, index_t col) {
        return failure_message([&] { given.fit(e2m1{}, matrix::Zero(1, 1), float_format::f16, {row, col}); });
    };
    EXPECT_EQ(complaint(0, 48), "given scales: have none for the tile at row 0, column 48");
    EXPECT_EQ(complaint(8, 0), "given scales: have none for the tile at row 8, column 0");
    EXPECT_EQ(complaint(7, 47), "");
    for (float const bad :
         {0.0F, -1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        given.scales.set(0, 1, {bad, 0});
        EXPECT_TRUE(complaint(2, 16).starts_with("given scales: that of the tile at row 2, column 16 is ")) << bad;
        EXPECT_EQ(complaint(2, 0), "");
    }
}

TEST(given_range, complains_of_tiles_of_nothing_and_missing_scales) {
    auto const message = [](given_range const& given) {
        return failure_message([&] { given.fit(e2m1{}, matrix::Zero(1, 1), float_format::f16, {0, 0}); });
    };
    scale_store const scales({4, 4}, {1, 2}, float_format::f32, false);
    EXPECT_EQ(message({scales, {1, 0}}), "given scales: are for tiles without weights");
    EXPECT_EQ(message({scales, {-1, 2}}), "given scales: are for tiles without weights");
    scale_store fewer = scales;
    fewer.scales.pop_back();
    EXPECT_EQ(message({fewer, {1, 2}}), "given scales: are not as many as the tiles they are for");
}

} // namespace
