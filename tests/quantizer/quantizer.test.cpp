// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <variant>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "grid/own_grid.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

/// A solver as a user would write one: every weight gets the same code, and it wants to know which.
struct constant_solver : std::monostate {
    using evidence = code;
    static solution solve(matrix_view w, code const& known, problem const& p, executor_ref executor) {
        solution s = p.begin(w);
        p.fit_all(w, s, executor);
        std::ranges::fill(s.codes, known);
        return s;
    }
};
static_assert(Solver<constant_solver>);

TEST(quantizer, composes_grid_granularity_and_range) {
    matrix const w = random_matrix(10, 40, 1);
    constexpr quantizer<int_grid<4>, per_group<16>> q;
    auto const result = q(w);
    solution const s = rtn{}.solve(w, {}, problem_of{int_grid<4>{}, per_group<16>{}, minmax_range{}});
    EXPECT_EQ(result.packed(), pack(int_grid<4>{}, s));
    quantizer<e2m1, per_block<>, rtn, mse_range> const other{
        .granularity = {4, 8}, .range = {.steps = 10}, .format = float_format::bf16};
    solution const t =
        rtn{}.solve(w, {}, problem_of{e2m1{}, per_block<>{4, 8}, mse_range{.steps = 10}, float_format::bf16});
    EXPECT_EQ(other(w).packed(), pack(e2m1{}, t));
    EXPECT_EQ(other(w).granularity(), (per_block<>{4, 8}));
}

TEST(quantizer, takes_a_users_grid_and_solver) {
    matrix const w = random_matrix(10, 40, 1);
    auto const powers = quantizer<test::powers_of_two>{}(w);
    Eigen::VectorXf const x = random_matrix(40, 1, 2);
    Eigen::VectorXf const y = powers * x;
    EXPECT_LE((y - dequantize(powers.packed()) * x).cwiseAbs().maxCoeff(), 1e-4);
    EXPECT_LE((dequantize(powers.packed()) - w).cwiseAbs().maxCoeff(), w.cwiseAbs().maxCoeff() / 4);

    auto const constant = quantizer<int_grid<4>, per_tensor, constant_solver>{}(w, code{3});
    float const expected = constant.at(0, 0);
    EXPECT_EQ(dequantize(constant.packed()), matrix::Constant(10, 40, expected));
}

TEST(quantizer, a_weight_is_the_nearest_number_of_its_tile) {
    matrix const w = random_matrix(6, 30, 1);
    auto const result = quantizer<int_grid<8, zero::none>>{}(w);
    EXPECT_LE((dequantize(result.packed()) - w).cwiseAbs().maxCoeff(), w.cwiseAbs().maxCoeff() / 250);
    EXPECT_EQ(result.bits_per_weight(), 8 + 16.0 / 30);
}

} // namespace
