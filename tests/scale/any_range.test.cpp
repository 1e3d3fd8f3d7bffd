// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/any_range.hpp"
#include "detent/scale/mse.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

/// A range as a user would write one: the scale grows with the first column of the tile.
struct by_place {
    float first = 1;
    template <Grid G> tile_scale fit(G const&, matrix_view, scale_format format, tile_place place) const {
        return {store(format, first + static_cast<float>(place.col)), 0};
    }
    friend bool operator==(by_place, by_place) = default;
};

TEST(any_range, fits_as_the_range_does) {
    matrix const tile = test::random_matrix(1, 20, 1);
    for (scale_format const format : {scale_format(float_format::f32), scale_format(scale_kind::e8m0)}) {
        EXPECT_EQ(any_range(e2m1{}, mse_range{}).fit(tile, format, {}), mse_range{}.fit(e2m1{}, tile, format));
        int_grid<4> const grid;
        EXPECT_EQ(any_range(grid, absmax_range{}).fit(tile, format, {}), absmax_range{}.fit(grid, tile, format));
        EXPECT_EQ(any_range(grid, by_place{}).fit(tile, format, {0, 7}).scale, 8);
    }
}

TEST(any_range, is_empty_where_the_grid_itself_says_the_same) {
    EXPECT_TRUE(any_range().empty());
    matrix const tile = test::random_matrix(1, 20, 1);
    auto const same = [&](auto grid, auto range) {
        bool const empty = any_range(grid, range).empty();
        if (empty) {
            EXPECT_EQ(any_grid(grid).lay(interval::of(grid, tile)), range.fit(grid, tile, float_format::f32));
        }
        return empty;
    };
    EXPECT_TRUE(same(int_grid<4>{}, minmax_range{}));
    EXPECT_TRUE(same(int_grid<4, zero::none>{}, absmax_range{}));
    EXPECT_TRUE(same(nf4{}, absmax_range{}));
    EXPECT_FALSE(same(int_grid<4>{}, absmax_range{}));
    EXPECT_FALSE(same(e2m1{}, mse_range{}));
}

TEST(any_range, is_equal_to_the_same_range_of_the_same_grid) {
    any_range const range(e2m1{}, mse_range{});
    EXPECT_TRUE(range == any_range(e2m1{}, mse_range{}));
    any_range const copy = range;
    EXPECT_TRUE(range == copy);
    EXPECT_FALSE(range == any_range(e2m1{}, mse_range{.norm = 2}));
    EXPECT_FALSE(range == any_range(nf4{}, mse_range{}));
    EXPECT_FALSE(range == any_range());
    EXPECT_TRUE(any_range() == any_range(nf4{}, absmax_range{}));
    EXPECT_FALSE(any_range(e2m1{}, by_place{1}) == any_range(e2m1{}, by_place{2}));
}

} // namespace
