// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <variant>

#include <gtest/gtest.h>

#include "detent/grid/int_grid.hpp"
#include "detent/scale/range.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::row_of;

/// A range as a user would write one.
struct unit_range : std::monostate {
    template <Grid G> static tile_scale fit(G const&, matrix_view, float_format) { return {1, 0}; }
};
struct not_comparable {
    template <Grid G> static tile_scale fit(G const&, matrix_view, float_format) { return {1, 0}; }
};
static_assert(RangeFor<unit_range, int_grid<4>>);
static_assert(!RangeFor<not_comparable, int_grid<4>> && !RangeFor<int, int_grid<4>> && !RangeFor<unit_range, int>);

TEST(interval, contains_zero_and_all_weights) {
    auto const expect = [](matrix const& w, float low, float high) {
        interval const i = interval::of(w);
        EXPECT_EQ(i.low, low);
        EXPECT_EQ(i.high, high);
    };
    expect(row_of({-1, 2, 0.5F}), -1, 2);
    expect(row_of({1, 2}), 0, 2);
    expect(row_of({-1, -2}), -2, 0);
    expect(row_of({0, 0}), -1, 1);
    matrix w = matrix::Zero(5, 9);
    w(3, 8) = 4;
    w(4, 0) = -1;
    expect(w, -1, 4);
    expect(w.block(2, 7, 2, 2), 0, 4); // a block of a larger matrix
}

TEST(interval, symmetric_and_scaled) {
    interval const i = interval{-1, 4}.symmetric();
    EXPECT_EQ(i.low, -4);
    EXPECT_EQ(i.high, 4);
    EXPECT_EQ((interval{-5, 4}.symmetric().high), 5);
    EXPECT_EQ((interval{0, 4}.symmetric().low), -4);
    EXPECT_EQ((interval{-2, 4}.scaled(0.5F).low), -1);
    EXPECT_EQ((interval{-2, 4}.scaled(0.5F).high), 2);
}

TEST(lay_affine, the_zero_point_stays_within_the_codes) {
    // The stored scale is larger than the interval asks for, or smaller.
    EXPECT_EQ(lay_affine(int_grid<2>{}, {-1e9F, 0}, float_format::f16), (tile_scale{65504, 3}));
    EXPECT_EQ(lay_affine(int_grid<2>{}, {-1e-9F, 0}, float_format::f16), (tile_scale{0x1p-14F, 0}));
    EXPECT_EQ(lay_affine(int_grid<2>{}, {-6, 0}, float_format::f16), (tile_scale{2, 3}));
}

} // namespace
