// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception


#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/rounding_error.hpp"
#include "nn/random_matrix.hpp"
#include "scale/infinity.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using detent::test::infinity;
using test::error_of;
using test::random_matrix;

template <Grid G> void expect_the_sum(G const& grid, float norm) {
    for (index_t const size : {1, 7, 8, 40, 128, 1000}) {
        matrix const w = random_matrix(1, size, static_cast<unsigned>(size));
        rounding_error<G> error(grid, w, norm);
        for (float scale = 0.1F; scale < 2; scale *= 1.7F) {
            for (float zero = 0; zero <= (AffineGrid<G> ? grid.highest() : 0.0F); ++zero) { // which share a sum
                tile_scale const s{scale, zero};
                double const expected = error_of(grid, w, s, norm);
                EXPECT_LT(error(s, static_cast<float>(0.5 * expected)), 1.0001 * expected);
                EXPECT_GE(error(s, static_cast<float>(0.5 * expected)), 0.5 * expected * (1 - 1e-6));
                EXPECT_NEAR(error(s, infinity), expected, 3e-5 * expected) << size << ", " << scale << ", " << zero;
            }
        }
    }
}

TEST(rounding_error, is_the_sum_over_all_weights_or_enough_of_them) {
    expect_the_sum(int_grid<1>{}, 2.4F);
    expect_the_sum(int_grid<3>{}, 2.4F);
    expect_the_sum(int_grid<4>{}, 2);
    expect_the_sum(int_grid<3, zero::none>{}, 1);
    expect_the_sum(e2m1{}, 2.4F);
    expect_the_sum(nf4{}, 2.4F);
}

TEST(rounding_error, no_smaller_range_has_an_error_below_the_limit) {
    bool needs_more_than_zero = false;
    for (unsigned seed = 0; seed < 20; ++seed) {
        matrix const w = random_matrix(1, 64 * (seed % 5 + 1), seed).array() + 0.2F * static_cast<float>(seed % 3);
        rounding_error<int_grid<3>> error(int_grid<3>{}, w, 2.4F);
        for (float limit = 0.1F; limit < 300; limit *= 2) {
            interval const needed = error.needed(limit);
            needs_more_than_zero = needs_more_than_zero || (needed.low < 0 && needed.high > 0);
            for (float zero = 0; zero < 8; ++zero) {
                for (float scale = 0.01F; scale < 3; scale *= 1.1F) {
                    if (-zero * scale > needed.low || (7 - zero) * scale < needed.high) {
                        EXPECT_GE(error_of(int_grid<3>{}, w, {scale, zero}, 2.4), limit * (1 - 1e-5));
                    }
                }
            }
        }
    }
    EXPECT_TRUE(needs_more_than_zero);
}

} // namespace
