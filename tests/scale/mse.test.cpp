// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/scale/mse.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::error_of;
using test::random_matrix;
using test::row_of;

static_assert(RangeFor<mse_range, int_grid<4>> && RangeFor<mse_range, e2m1> && RangeFor<mse_range, nf4> &&
              RangeFor<mse_range, test::powers_of_two>);

/// The scales of GPTQ's search: the min-max (or symmetric) range times 1, 0.99, ... 0.21.
template <Grid G> std::vector<tile_scale> candidates(G const& grid, mse_range const& range, matrix const& w) {
    std::vector<tile_scale> list;
    double low = std::min(0.0F, w.minCoeff());
    double high = std::max(0.0F, w.maxCoeff());
    bool const symmetric = range.symmetric || !AffineGrid<G>;
    if (symmetric) {
        high = std::max(-low, high);
        low = -high;
    }
    double const levels = double{grid.highest()} - grid.lowest();
    for (int i = 0; i < static_cast<int>(range.max_shrink * static_cast<float>(range.steps)); ++i) {
        double const p = 1 - static_cast<double>(i) / range.steps;
        float const s = store(float_format::f16, static_cast<float>(p * (high - low) / levels));
        double const middle = AffineGrid<G> ? (levels + 1) / 2 : 0;
        list.push_back({s, static_cast<float>(symmetric ? middle : std::nearbyint(-p * low / s))});
    }
    return list;
}

template <Grid G> void expect_best_candidate(G const& grid, mse_range const& range) {
    for (unsigned seed = 0; seed < 12; ++seed) {
        matrix w = random_matrix(seed % 3 + 1, 24, seed);
        w(0, 5) *= 4; // an outlier worth clipping
        double least = std::numeric_limits<double>::infinity();
        for (tile_scale const s : candidates(grid, range, w)) {
            least = std::min(least, error_of(grid, w, s, range.norm));
        }
        tile_scale const found = range.fit(grid, w, float_format::f16);
        EXPECT_NEAR(error_of(grid, w, found, range.norm), least, 1e-5 * least) << seed;
        EXPECT_EQ(found.scale, store(float_format::f16, found.scale));
    }
}

TEST(mse_range, finds_the_best_of_its_candidates) {
    expect_best_candidate(int_grid<2>{}, {});
    expect_best_candidate(int_grid<4>{}, {});
    expect_best_candidate(int_grid<4>{}, {.symmetric = true});
    expect_best_candidate(int_grid<3, zero::none>{}, {});
    expect_best_candidate(int_grid<3>{}, {.norm = 2, .steps = 20, .max_shrink = 0.5F});
    expect_best_candidate(e2m1{}, {});
    expect_best_candidate(ternary{}, {});
    expect_best_candidate(test::powers_of_two{}, {});
}

template <Grid G> void expect_no_worse_than_the_whole_range(G const& grid, mse_range const& range) {
    bool better = false;
    for (unsigned seed = 0; seed < 50; ++seed) {
        matrix const w = random_matrix(1, 64, 100 + seed);
        double const searched = error_of(grid, w, range.fit(grid, w, float_format::f16), range.norm);
        double const whole = error_of(grid, w, default_range<G>{}.fit(grid, w, float_format::f16), range.norm);
        EXPECT_LE(searched, whole * (1 + 1e-6));
        better = better || searched < 0.99 * whole;
    }
    EXPECT_TRUE(better);
}

TEST(mse_range, is_no_worse_than_the_range_it_shrinks) {
    expect_no_worse_than_the_whole_range(int_grid<2>{}, {});
    expect_no_worse_than_the_whole_range(int_grid<3>{}, {.norm = 2});
    expect_no_worse_than_the_whole_range(int_grid<3, zero::none>{}, {});
    expect_no_worse_than_the_whole_range(nf4{}, {});
}

TEST(mse_range, tiles_that_the_grid_represents_have_no_error) {
    mse_range const range;
    auto const f16 = float_format::f16;
    matrix const integers = 0.25F * row_of({-4, 11, 0, 1, -2, 7});
    EXPECT_EQ(range.fit(int_grid<4>{}, integers, f16), (tile_scale{0.25F, 4}));
    EXPECT_EQ(error_of(int_grid<4>{}, integers, range.fit(int_grid<4>{}, integers, f16), 2.4), 0);
    matrix const floats = 2 * row_of({6, -6, 0.5F, 4, -1.5F, 0});
    EXPECT_EQ(range.fit(e2m1{}, floats, f16), (tile_scale{2, 0}));
    EXPECT_EQ(range.fit(ternary{}, row_of({-0.5F, 0, 0.5F}), f16), (tile_scale{0.5F, 0}));
    matrix const zeros = matrix::Zero(2, 3);
    EXPECT_EQ(error_of(int_grid<4>{}, zeros, range.fit(int_grid<4>{}, zeros, f16), 2.4), 0);
}

TEST(mse_range, one_step_is_the_range_as_it_is) {
    matrix const w = random_matrix(1, 30, 3);
    mse_range const one{.steps = 1, .max_shrink = 1};
    EXPECT_EQ(one.fit(int_grid<4>{}, w, float_format::f16), minmax_range{}.fit(int_grid<4>{}, w, float_format::f16));
    EXPECT_EQ(one.fit(nf4{}, w, float_format::f16), absmax_range{}.fit(nf4{}, w, float_format::f16));
}

TEST(mse_range, powers_of_two_are_the_best_of_all) {
    int larger = 0;
    for (unsigned seed = 0; seed < 200; ++seed) {
        matrix const w = random_matrix(1, 32, seed);
        tile_scale const whole = absmax_range{}.fit(e2m1{}, w, scale_kind::e8m0);
        tile_scale const found = mse_range{}.fit(e2m1{}, w, scale_kind::e8m0);
        double least = std::numeric_limits<double>::infinity();
        for (int n = -8; n < 8; ++n) {
            least = std::min(least, error_of(e2m1{}, w, {std::ldexp(1.0F, n), 0}, 2.4));
        }
        EXPECT_LE(error_of(e2m1{}, w, found, 2.4), least * 1.0001) << seed;
        larger += found.scale > whole.scale ? 1 : 0;
    }
    EXPECT_GT(larger, 0); // where OCP's rule clips too much
}

TEST(mse_range, options_are_checked) {
    matrix const w = random_matrix(1, 20, 1);
    auto const message = [&](mse_range range) {
        return failure_message([&] { range.fit(int_grid<4>{}, w, float_format::f16); });
    };
    EXPECT_EQ(message({.norm = 0.5F}), "mse_range: its norm is 0.500000, not from 1 to 1000");
    EXPECT_EQ(message({.steps = 0}), "mse_range: its number of steps is 0, not positive");
    EXPECT_EQ(message({.max_shrink = -1}), "mse_range: its largest shrinkage is -1.000000, not from 0 to 1");
    EXPECT_EQ(message({.max_shrink = 1.5F}), "mse_range: its largest shrinkage is 1.500000, not from 0 to 1");
    EXPECT_EQ(message({.norm = std::numeric_limits<float>::quiet_NaN()}).substr(0, 22), "mse_range: its norm is");
    EXPECT_EQ(message({.max_shrink = 1}), "");
}

} // namespace
