// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/minmax.hpp"
#include "nn/random_matrix.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::random_matrix;
using test::row_of;

static_assert(RangeFor<minmax_range, int_grid<4>>);
static_assert(!RangeFor<minmax_range, int_grid<4, zero::none>> && !RangeFor<minmax_range, e2m1>);

template <int Bits> void expect_spans_minimum_to_maximum() {
    for (unsigned seed = 0; seed < 20; ++seed) {
        matrix w = random_matrix(3, 17, seed);
        w.array() += static_cast<float>(seed % 3) - 1; // also tiles that are not centred
        double const low = std::min(0.0F, w.minCoeff());
        double const high = std::max(0.0F, w.maxCoeff());
        for (auto const format : {float_format::f16, float_format::bf16, float_format::f32}) {
            tile_scale const s = minmax_range{}.fit(int_grid<Bits>{}, w, format);
            double const exact = (high - low) / ((1 << Bits) - 1);
            double const precision = format == float_format::f16 ? 0x1p-11 : format == float_format::bf16 ? 0x1p-8 : 0;
            EXPECT_NEAR(s.scale, exact, exact * (precision + 2e-7));
            EXPECT_EQ(s.scale, store(format, s.scale));
            EXPECT_NEAR(s.zero, -low / s.scale, 0.5 + 1e-4);
            EXPECT_EQ(s.zero, std::nearbyint(s.zero));
            EXPECT_GE(s.zero, 0);
            EXPECT_LE(s.zero, (1 << Bits) - 1);
        }
    }
}

TEST(minmax_range, spans_the_smallest_to_the_largest_weight) {
    expect_spans_minimum_to_maximum<1>();
    expect_spans_minimum_to_maximum<2>();
    expect_spans_minimum_to_maximum<4>();
    expect_spans_minimum_to_maximum<8>();
}

TEST(minmax_range, known_scales) {
    minmax_range const range;
    int_grid<4> const grid;
    EXPECT_EQ(range.fit(grid, row_of({-3, 12}), float_format::f16), (tile_scale{1, 3}));
    // The zero point uses the stored scale: -low / s, ties to even.
    EXPECT_EQ(range.fit(grid, row_of({-2.5F, 12.5F}), float_format::f16), (tile_scale{1, 2}));
    EXPECT_EQ(range.fit(grid, row_of({-3.5F, 11.5F}), float_format::f16), (tile_scale{1, 4}));
}

TEST(minmax_range, always_contains_zero) {
    minmax_range const range;
    int_grid<4> const grid;
    EXPECT_EQ(range.fit(grid, row_of({15, 7.5F, 3}), float_format::f16), (tile_scale{1, 0}));
    EXPECT_EQ(range.fit(grid, row_of({-15, -7.5F, -3}), float_format::f16), (tile_scale{1, 15}));
}

TEST(minmax_range, zeros_get_the_scale_of_minus_one_to_one) {
    EXPECT_EQ(minmax_range{}.fit(int_grid<1>{}, row_of({0, 0}), float_format::f32), (tile_scale{2, 0}));
    EXPECT_EQ(minmax_range{}.fit(int_grid<2>{}, row_of({0, -0.0F}), float_format::f32), (tile_scale{2.0F / 3, 2}));
    for (tile_scale const s : {minmax_range{}.fit(int_grid<4>{}, matrix::Zero(3, 5), float_format::f16)}) {
        EXPECT_EQ(decode(int_grid<4>{}, encode(int_grid<4>{}, 0, s), s), 0);
    }
}

TEST(minmax_range, tiny_and_huge_weights_keep_their_zero) {
    int_grid<4> const grid;
    for (float const size : {1e-40F, 1e-12F, 1e7F, 1e30F}) {
        tile_scale const s = minmax_range{}.fit(grid, row_of({-size, 0, 0.5F * size}), float_format::f16);
        EXPECT_GE(s.scale, 0x1p-24F);
        EXPECT_LE(s.scale, 65504);
        EXPECT_EQ(decode(grid, encode(grid, 0, s), s), 0) << size;
    }
}

} // namespace
