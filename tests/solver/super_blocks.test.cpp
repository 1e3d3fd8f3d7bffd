// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/executor.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/super_blocks.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace detent {
namespace {

matrix random_weights(index_t rows, index_t cols) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.1F);
    return matrix::NullaryExpr(rows, cols, [&](index_t, index_t) { return normal(random); });
}

/// The matrix is one of blocks of ggml, to the bit.
void expect_blocks(packed_matrix const& w, char const* name) {
    auto const& type = io::ggml_type_named(name);
    ASSERT_EQ(type.obstacle(w), "");
    std::vector<std::uint8_t> blocks(static_cast<std::size_t>(w.shape().size() / 256 * type.block_bytes));
    type.write(w, 0, w.shape().rows, blocks.data());
    EXPECT_TRUE(type.read(blocks.data(), w.shape()) == w);
}

template <Grid G, class R> problem_of<G, per_tile, R> problem_for(G grid, R range, index_t tile) {
    return problem_of<G, per_tile, R>(grid, per_tile{1, tile}, range, float_format::f32);
}

TEST(super_blocks, weights_are_those_of_ggml_blocks) {
    matrix const w = random_weights(5, 512);
    expect_blocks(pack(super_blocks<>{}.solve(w, {}, problem_for(int_grid<2>{}, minmax_range{}, 16))), "Q2_K");
    expect_blocks(pack(super_blocks<>{}.solve(w, {}, problem_for(int_grid<3, zero::none>{}, absmax_range{}, 16))),
                  "Q3_K");
    expect_blocks(pack(super_blocks<>{}.solve(w, {}, problem_for(int_grid<4>{}, minmax_range{}, 32))), "Q4_K");
    expect_blocks(pack(super_blocks<>{}.solve(w, {}, problem_for(int_grid<5>{}, minmax_range{}, 32))), "Q5_K");
    expect_blocks(pack(super_blocks<>{}.solve(w, {}, problem_for(int_grid<6, zero::none>{}, absmax_range{}, 16))),
                  "Q6_K");
}

TEST(super_blocks, codes_are_the_nearest) {
    matrix const w = random_weights(3, 256);
    auto const made = pack(super_blocks<>{}.solve(w, {}, problem_for(int_grid<4>{}, minmax_range{}, 32)));
    matrix const rounded = dequantize(made);
    for (index_t row = 0; row < w.rows(); ++row) {
        for (index_t col = 0; col < w.cols(); ++col) {
            auto const s = made.scales.at(row, col / 32);
            float least = INFINITY;
            for (int code = 0; code < 16; ++code) {
                least = std::min(least, std::abs((static_cast<float>(code) - s.zero) * s.scale - w(row, col)));
            }
            EXPECT_NEAR(std::abs(rounded(row, col) - w(row, col)), least, 1e-6);
        }
    }
}

TEST(super_blocks, inner_solvers_choose_codes) {
    matrix const w = random_weights(16, 256);
    hessian const h = hessian::of(test::correlated_inputs(600, 256, 1));
    auto const p = problem_for(int_grid<3, zero::none>{}, absmax_range{}, 16);
    auto const loss = [&](solution const& s) { return h.quadratic(w - dequantize(pack(s))); };
    double const nearest = loss(super_blocks<rtn>{}.solve(w, h, p));
    auto const solved = super_blocks<gptq<>>{}.solve(w, h, p);
    EXPECT_LT(loss(solved), 0.7 * nearest);
    EXPECT_LT(loss(super_blocks<obq>{}.solve(w, h, p)), 0.7 * nearest);
    super_blocks<gptq<>> in_order;
    in_order.inner.activation_order = true;
    auto const ordered = in_order.solve(w, h, p);
    EXPECT_LT(loss(ordered), 0.7 * nearest);
    expect_blocks(pack(ordered), "Q3_K");
    auto const q4 = problem_for(int_grid<4>{}, minmax_range{}, 32);
    auto const shifted = super_blocks<gptq<>>{}.solve(w, h, q4);
    EXPECT_LT(loss(shifted), 0.7 * loss(super_blocks<rtn>{}.solve(w, h, q4)));
    expect_blocks(pack(shifted), "Q4_K");
}

TEST(super_blocks, any_executor_makes_the_same_bits) {
    matrix const w = random_weights(9, 256);
    hessian const h = hessian::of(test::correlated_inputs(300, 256, 1));
    auto const p = problem_for(int_grid<4>{}, minmax_range{}, 32);
    thread_team team(3);
    auto const one = pack(super_blocks<gptq<>>{}.solve(w, h, p));
    EXPECT_TRUE(pack(super_blocks<gptq<>>{}.solve(w, h, p, team)) == one);
}

TEST(super_blocks, other_problems_are_refused) {
    auto const of = [](auto const& p, index_t cols = 256) {
        return failure_message([&] { super_blocks<>{}.solve(random_weights(2, cols), {}, p); });
    };
    std::string const other = "scales of two levels: are not for this grid, granularity and format of scales";
    EXPECT_EQ(of(problem_for(int_grid<4>{}, minmax_range{}, 16)), other);
    EXPECT_EQ(of(problem_for(int_grid<4, zero::none>{}, absmax_range{}, 32)), other);
    EXPECT_EQ(of(problem_of<int_grid<4>, per_tile, minmax_range>({}, {1, 32}, {})), other); // f16
    EXPECT_EQ(of(problem_for(int_grid<4>{}, minmax_range{}, 32), 128),
              "scales of two levels: its number of inputs is 128, not a multiple of 256");
}

} // namespace
} // namespace detent
