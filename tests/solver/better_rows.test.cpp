// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/better_rows.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;

matrix const rows_w = test::random_matrix(70, 40, 3);
layer_inputs const rows_known = layer_inputs::of(test::correlated_inputs(200, 40, 1));

matrix full_hessian() { return test::dense(rows_known.hessian()).cast<float>(); }

TEST(row_losses, are_those_of_the_numbers_that_products_see) {
    Eigen::MatrixXd const h = test::dense(rows_known.hessian());
    problem_of const p{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    auto const expect = [&](solution const& s) {
        Eigen::MatrixXd const d = (dequantize(pack(s)) - rows_w).cast<double>();
        Eigen::VectorXd const expected = (d * h).cwiseProduct(d).rowwise().sum();
        thread_team two(2);
        basic_vector<double> const found = row_losses(rows_w, s, full_hessian(), two);
        for (index_t row = 0; row < 70; ++row) {
            EXPECT_NEAR(found(row), expected(row), 1e-4 * expected(row));
        }
        EXPECT_EQ(found, row_losses(rows_w, s, full_hessian()));
    };
    expect(rtn{}.solve(rows_w, {}, p));
    expect(gptq<>{.activation_order = true}.solve(rows_w, rows_known, p));
    expect(owq<>{.columns = 3}.solve(rows_w, rows_known, p));
    expect(transformed<hadamard<8>, owq<>>{.inner = {.columns = 3}}.solve(rows_w, rows_known, p));
}

/// Every row of tiles is that of the one that loses less there.
template <Grid G> void expect_better_rows(G const& grid, per_tile granularity) {
    problem_of const whole{grid, granularity, absmax_range{}};
    problem_of const shrunk{grid, granularity, mse_range{.steps = 10}};
    solution const a = rtn{}.solve(rows_w, {}, whole);
    solution const b = rtn{}.solve(rows_w, {}, shrunk);
    auto const losses_a = row_losses(rows_w, a, full_hessian());
    auto const losses_b = row_losses(rows_w, b, full_hessian());
    solution const best = better_rows(a, losses_a, b, losses_b);
    int from_b = 0;
    for (index_t top = 0; top < 70; top += a.tile.rows) {
        index_t const count = std::min(a.tile.rows, 70 - top);
        bool const second = losses_b.segment(top, count).sum() < losses_a.segment(top, count).sum();
        from_b += second ? 1 : 0;
        for (index_t row = top; row < top + count; ++row) {
            for (index_t col = 0; col < 40; ++col) {
                ASSERT_EQ(best.code_at(row, col), (second ? b : a).code_at(row, col));
                ASSERT_EQ(best.scale_at(row, col), (second ? b : a).scale_at(row, col));
            }
        }
    }
    EXPECT_GT(from_b, 0);
    EXPECT_LT(from_b, a.scales.tiles.rows);
}

TEST(better_rows, takes_every_row_of_tiles_from_the_better_solution) {
    expect_better_rows(int_grid<3>{}, {1, 0});
    expect_better_rows(int_grid<4>{}, {1, 16});
    expect_better_rows(int_grid<3>{}, {4, 16});
    expect_better_rows(test::five{}, {1, 0}); // has codes that name no number
}

TEST(better_rows, takes_weak_columns_along) {
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    problem_of const shrunk{int_grid<3>{}, per_channel{}, mse_range{.steps = 10}};
    solution const a = owq<>{.columns = 2, .chosen_by = sensitivity::activation}.solve(rows_w, rows_known, p);
    solution const b = owq<>{.columns = 2, .chosen_by = sensitivity::activation}.solve(rows_w, rows_known, shrunk);
    ASSERT_EQ(a.weak.columns(), b.weak.columns());
    basic_vector<double> const ones = basic_vector<double>::Ones(70);
    basic_vector<double> second = ones;
    second(5) = 0.5;
    solution const best = better_rows(a, ones, b, second);
    for (index_t row = 0; row < 70; ++row) {
        solution const& from = row == 5 ? b : a;
        EXPECT_EQ(best.weak.at(0, row), from.weak.at(0, row));
        EXPECT_EQ(best.weak.at(1, row), from.weak.at(1, row));
        EXPECT_EQ(best.scale_at(row, 0), from.scale_at(row, 0));
    }
}

TEST(better_rows, a_loss_that_is_no_number_never_wins) {
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    problem_of const shrunk{int_grid<3>{}, per_channel{}, mse_range{.steps = 10}};
    problem_of const groups{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    solution const a = rtn{}.solve(rows_w, {}, p);
    basic_vector<double> const ones = basic_vector<double>::Ones(70);
    for (double const bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        basic_vector<double> losses = ones;
        losses(5) = bad;
        for (problem const* other : {static_cast<problem const*>(&shrunk), static_cast<problem const*>(&groups)}) {
            solution const b = rtn{}.solve(rows_w, {}, *other);
            EXPECT_EQ(better_rows(a, losses, b, ones).scale_at(5, 0), b.scale_at(5, 0));
            EXPECT_EQ(better_rows(a, ones, b, losses).scale_at(5, 0), a.scale_at(5, 0));
            EXPECT_EQ(failure_message([&] { better_rows(a, losses, b, losses); }),
                      "choice of rows: finds no error that is finite; are weights or inputs too large?");
        }
    }
}

TEST(better_rows, takes_one_as_a_whole_where_columns_are_stored_differently) {
    problem_of const p{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    solution const a = gptq<>{.activation_order = true}.solve(rows_w, rows_known, p);
    solution const b = rtn{}.solve(rows_w, {}, p);
    basic_vector<double> const ones = basic_vector<double>::Ones(70);
    basic_vector<double> mixed = ones;
    mixed(0) = 0;
    EXPECT_EQ(better_rows(a, ones, b, mixed).codes, b.codes);
    EXPECT_EQ(better_rows(a, mixed, b, ones).codes, a.codes);
    EXPECT_EQ(better_rows(a, ones, b, ones).codes, a.codes);
}

} // namespace
