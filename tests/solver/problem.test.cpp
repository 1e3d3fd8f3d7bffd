// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

static_assert(Solver<rtn> && Solver<gptq<>> && Solver<gptq<float>> && !Solver<int> && !Solver<hessian>);

TEST(problem, begins_with_a_place_for_every_code_and_scale) {
    problem_of const p{int_grid<4>{}, per_group<16>{}, minmax_range{}, float_format::bf16};
    solution const s = p.begin(matrix::Zero(5, 40));
    EXPECT_EQ(s.shape, (extents{5, 40}));
    EXPECT_EQ(s.tile, (extents{1, 16}));
    EXPECT_EQ(s.scales.tiles, (extents{5, 3}));
    EXPECT_EQ(s.scales.format, float_format::bf16);
    EXPECT_EQ(s.scales.zeros.size(), 15U);
    EXPECT_EQ(s.codes.size(), 200U);
    EXPECT_TRUE(s.map.empty());
    EXPECT_TRUE((problem_of{e2m1{}, per_channel{}, absmax_range{}}.begin(matrix::Zero(5, 40)).scales.zeros.empty()));
}

TEST(problem, a_weight_that_is_not_finite_is_named) {
    matrix w = random_matrix(5, 40, 1);
    w(3, 17) = std::numeric_limits<float>::quiet_NaN();
    w(4, 2) = std::numeric_limits<float>::infinity();
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    EXPECT_EQ(failure_message([&] { p.begin(w); }), "weights: the weight at row 3, column 17 is not finite");
    w(3, 17) = 0;
    EXPECT_EQ(failure_message([&] { p.begin(w); }), "weights: the weight at row 4, column 2 is not finite");
}

TEST(problem, fits_every_tile_to_its_weights) {
    matrix const w = random_matrix(7, 43, 1);
    for (per_tile const granularity : {per_tile{1, 0}, {0, 0}, {1, 16}, {3, 10}, {2, 0}}) {
        problem_of const p{int_grid<4>{}, granularity, minmax_range{}};
        solution s = p.begin(w);
        p.fit_all(w, s, {});
        extents const tile = s.tile;
        for (index_t r = 0; r < s.scales.tiles.rows; ++r) {
            for (index_t c = 0; c < s.scales.tiles.cols; ++c) {
                matrix const part = w.block(r * tile.rows, c * tile.cols, std::min(tile.rows, 7 - r * tile.rows),
                                            std::min(tile.cols, 43 - c * tile.cols));
                EXPECT_EQ(s.scales.at(r, c), minmax_range{}.fit(int_grid<4>{}, part, float_format::f16));
            }
        }
    }
}

TEST(problem, rounds_each_weight_with_its_scale) {
    problem_of const p{e2m1{}, per_channel{}, absmax_range{}};
    float const weights[] = {3.1F, -0.9F, 100};
    float const scales[] = {1, 0.25F, 2};
    float const zeros[] = {0, 0, 0};
    code codes[3];
    float numbers[3];
    p.round(3, weights, scales, zeros, codes, numbers);
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(codes[i], encode(e2m1{}, weights[i], {scales[i], 0}));
        EXPECT_EQ(numbers[i], decode(e2m1{}, codes[i], {scales[i], 0}));
    }
}

TEST(problem, has_units_that_scales_can_have) {
    auto const message = [](scale_format format) {
        return failure_message([&] { problem_of(e2m1{}, per_channel{}, absmax_range{}, format); });
    };
    EXPECT_TRUE(message({scale_kind::ue4m3, 0}).starts_with("scale format: its unit is 0.000000, not from 2^-117"));
    EXPECT_TRUE(message({scale_kind::ue4m3, -1}).starts_with("scale format: its unit is -1.000000"));
    EXPECT_TRUE(message({scale_kind::f16, 2}).starts_with("scale format: its unit is 2.000000, not 1"));
    EXPECT_EQ(message({scale_kind::ue4m3, 2}), "");
}

} // namespace
