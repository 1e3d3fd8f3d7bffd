// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/least_squares.hpp"
#include "detent/scale/mse.hpp"
#include "grid/own_grid.hpp"
#include "nn/random_matrix.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::error_of;
using test::random_matrix;
using test::row_of;
using signs = int_grid<1, zero::none>;

static_assert(RangeFor<least_squares_range, signs> && RangeFor<least_squares_range, test::uneven_pair>);
static_assert(!RangeFor<least_squares_range, int_grid<1>> && !RangeFor<least_squares_range, ternary> &&
              !RangeFor<least_squares_range, int_grid<2, zero::none>> && !RangeFor<least_squares_range, e2m1>);

TEST(least_squares_range, of_signs_is_the_mean_absolute_weight) {
    least_squares_range const range;
    auto const f32 = float_format::f32;
    EXPECT_EQ(range.fit(signs{}, row_of({-3, 1}), f32), (tile_scale{2, 0}));
    EXPECT_EQ(range.fit(signs{}, row_of({1, 2, 6}), f32), (tile_scale{3, 0}));
    EXPECT_EQ(range.fit(signs{}, row_of({-1, -2, -6}), f32), (tile_scale{3, 0}));
    EXPECT_EQ(range.fit(signs{}, row_of({0, 0, -6}), f32), (tile_scale{2, 0}));
    EXPECT_EQ(range.fit(signs{}, row_of({5}), f32), (tile_scale{5, 0}));
    EXPECT_EQ(range.fit(signs{}, row_of({3e38F, -3e38F}), f32), (tile_scale{3e38F, 0})); // whose squares are no floats
    matrix const w = random_matrix(7, 300, 1);
    EXPECT_EQ(range.fit(signs{}, w.block(2, 5, 3, 200), f32).scale,
              static_cast<float>(w.block(2, 5, 3, 200).cast<double>().cwiseAbs().mean()));
}

TEST(least_squares_range, has_the_error_of_theory_for_gaussian_weights) {
    matrix const w = random_matrix(1, 1 << 18, 2);
    auto const relative = [&](auto const& range) {
        return std::sqrt(error_of(signs{}, w, range.fit(signs{}, w, float_format::f16), 2) / w.squaredNorm());
    };
    EXPECT_NEAR(relative(least_squares_range{}), std::sqrt(1 - 2 / std::acos(-1)), 2e-3);
    EXPECT_GT(relative(absmax_range{}), 1.5);
    EXPECT_GT(relative(mse_range{}), relative(least_squares_range{}));
}

/// The smallest sum of squares by trying scales.
template <Grid G> double least_error(G const& grid, matrix const& w) {
    double least = std::numeric_limits<double>::infinity();
    float const most = 2 * w.cwiseAbs().maxCoeff();
    for (int i = 1; i <= 4000; ++i) {
        least = std::min(least, error_of(grid, w, {most * static_cast<float>(i) / 4000, 0}, 2));
    }
    return least;
}

TEST(least_squares_range, no_scale_has_a_smaller_error) {
    for (unsigned seed = 0; seed < 40; ++seed) {
        matrix w = random_matrix(1 + seed % 3, 1 + static_cast<index_t>(seed), seed);
        w.array() += 0.2F * static_cast<float>(seed % 5) - 0.4F; // not the same on both sides
        w(0, 0) *= seed % 4 == 0 ? 100 : 1;
        auto const expect_least = [&](auto const& grid) {
            double const error = error_of(grid, w, least_squares_range{}.fit(grid, w, float_format::f32), 2);
            EXPECT_LE(error, least_error(grid, w) * (1 + 1e-6) + 1e-12) << seed;
        };
        expect_least(signs{});
        expect_least(test::uneven_pair{});
    }
}

TEST(least_squares_range, takes_the_nearest_scale_of_the_format) {
    for (unsigned seed = 0; seed < 40; ++seed) {
        matrix const w = (0.5F + 0.1F * static_cast<float>(seed)) * random_matrix(1, 50, seed);
        double least = std::numeric_limits<double>::infinity();
        for (int n = -10; n < 10; ++n) {
            least = std::min(least, error_of(signs{}, w, {std::ldexp(1.0F, n), 0}, 2));
        }
        tile_scale const power = least_squares_range{}.fit(signs{}, w, scale_kind::e8m0);
        EXPECT_LE(error_of(signs{}, w, power, 2), least * (1 + 1e-6)) << seed;
        float const mean = w.cwiseAbs().mean();
        scale_format const nv = with_unit(signs{}, w, scale_kind::ue4m3);
        EXPECT_EQ(least_squares_range{}.fit(signs{}, w, nv).scale, store(nv, mean));
        EXPECT_NEAR(least_squares_range{}.fit(signs{}, w, float_format::bf16).scale, mean, mean / 256);
    }
}

} // namespace
