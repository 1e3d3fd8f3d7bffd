// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/rtn.hpp"
#include "grid/own_grid.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

template <Grid G, class Range> void expect_rounded(G const& grid, Range const& range) {
    matrix const larger = random_matrix(40, 60, 1);
    for (extents const shape : {extents{1, 1}, {1, 50}, {37, 1}, {37, 50}}) {
        auto const w = larger.block(1, 2, shape.rows, shape.cols); // rows further apart than they are long
        for (per_tile const granularity : {per_tile{1, 0}, {0, 0}, {1, 16}, {3, 10}}) {
            solution const s = rtn{}.solve(w, {}, problem_of{grid, granularity, range});
            ASSERT_EQ(s.shape, shape);
            ASSERT_EQ(s.tile, granularity.tile(shape));
            EXPECT_TRUE(s.map.empty());
            for (index_t r = 0; r < shape.rows; ++r) {
                for (index_t c = 0; c < shape.cols; ++c) {
                    ASSERT_EQ(s.code_at(r, c), encode(grid, w(r, c), s.scale_at(r, c)));
                }
            }
        }
    }
}

TEST(rtn, encodes_every_weight_with_the_scale_of_its_tile) {
    expect_rounded(int_grid<4>{}, minmax_range{});
    expect_rounded(int_grid<3, zero::none>{}, mse_range{});
    expect_rounded(e2m1{}, absmax_range{});
    expect_rounded(ternary{}, absmax_range{});
    expect_rounded(test::powers_of_two{}, absmax_range{});
}

TEST(rtn, errors_are_a_step_at_most) {
    matrix const w = random_matrix(20, 64, 1);
    solution const s =
        rtn{}.solve(w, {}, problem_of{int_grid<4>{}, per_group<16>{}, minmax_range{}, float_format::f32});
    for (index_t r = 0; r < 20; ++r) {
        for (index_t c = 0; c < 64; ++c) {
            tile_scale const scale = s.scale_at(r, c);
            EXPECT_NEAR(decode(int_grid<4>{}, s.code_at(r, c), scale), w(r, c), 1.001F * scale.scale);
        }
    }
    EXPECT_EQ(s.report.loss, 0);
    EXPECT_TRUE(s.report.fallback.empty());
}

TEST(rtn, threads_do_not_change_a_code) {
    matrix const w = random_matrix(100, 64, 1);
    problem_of const p{int_grid<4>{}, per_group<16>{}, minmax_range{}};
    thread_team two(2);
    EXPECT_EQ(rtn{}.solve(w, {}, p).codes, rtn{}.solve(w, {}, p, two).codes);
}

} // namespace
