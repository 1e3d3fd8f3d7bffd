// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <Eigen/Dense>
#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/fallbacks.hpp"
#include "solver/reference_gptq.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::dense;
using test::random_matrix;

problem_of const int3_rows{int_grid<3>{}, per_channel{}, minmax_range{}};

/// Inputs some of which are large, and one of which is always zero.
matrix inputs_with_outliers(index_t features) {
    matrix x = correlated_inputs(3 * features + 7, features, 1);
    for (index_t j = 5; j < features; j += 17) {
        x.col(j) *= 6;
    }
    x.col(2).setZero();
    return x;
}

/// H_jj |W_j - RTN(W)_j|^2, weight by weight and in double.
Eigen::VectorXd slow_sensitivities(matrix const& w, Eigen::MatrixXd const& h, problem const& p) {
    Eigen::VectorXd s = Eigen::VectorXd::Zero(w.cols());
    for (index_t row = 0; row < w.rows(); ++row) {
        tile_scale const t = p.fit(w.row(row), {row, 0});
        for (index_t col = 0; col < w.cols(); ++col) {
            code c = 0;
            float number = 0;
            p.round(1, &w(row, col), &t.scale, &t.zero, &c, &number);
            double const error = static_cast<double>(w(row, col)) - static_cast<double>(number);
            s(col) += h(col, col) * error * error;
        }
    }
    return s;
}

TEST(sensitivities, are_those_of_whole_rows_rounded_to_nearest) {
    matrix const w = random_matrix(130, 40, 3);
    hessian const h = hessian::of(inputs_with_outliers(40));
    problem_of const groups{int_grid<3>{}, per_group<8>{}, minmax_range{}};
    Eigen::VectorXd const expected = slow_sensitivities(w, dense(h), groups);
    thread_team two(2);
    for (executor_ref const executor : {executor_ref{}, executor_ref{two}}) {
        basic_vector<double> const s = sensitivities(w, h, groups, sensitivity::output_error, executor);
        for (index_t j = 0; j < 40; ++j) {
            EXPECT_NEAR(s(j), expected(j), 1e-6 * expected(j));
        }
        EXPECT_EQ(s(2), 0);
        EXPECT_EQ(sensitivities(w, h, groups, sensitivity::activation, executor), h.diagonal());
    }
}

TEST(compensated, is_the_least_squares_solution) {
    index_t const out = 150;
    index_t const others = 61;
    index_t const weak = 5;
    Eigen::MatrixXd const a = random_matrix(others + weak, others + weak, 2).cast<double>();
    Eigen::MatrixXd const h = a * a.transpose() + Eigen::MatrixXd::Identity(a.rows(), a.rows());
    basic_matrix<double> r = h;
    ASSERT_TRUE(factor_reversed(r));
    r.triangularView<Eigen::StrictlyLower>().setZero();
    basic_matrix<double> const w = random_matrix(out, weak, 3).cast<double>();
    basic_matrix<double> const e = random_matrix(out, others, 4).cast<double>();
    Eigen::MatrixXd const expected = w + e * h.topRightCorner(others, weak) * h.bottomRightCorner(weak, weak).inverse();
    thread_team three(3);
    basic_matrix<double> const found = compensated(w, e, r, three);
    EXPECT_LE((found - expected).cwiseAbs().maxCoeff(), 1e-10 * expected.cwiseAbs().maxCoeff());
    EXPECT_EQ(compensated(w, e, r), found);
    EXPECT_GT((found - w).cwiseAbs().maxCoeff(), 1e-2);
}

/// The answer of OWQ's published steps: the weak columns last in the sweep of GPTQ, out of the ranges, not rounded.
template <Grid G, class Range>
void expect_published(G const& grid, Range const& range, extents shape, per_tile granularity, owq<> const& solver) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.cols << ", tile " << granularity.rows << " x "
                                    << granularity.cols << ", order " << solver.inner.activation_order << ", static "
                                    << solver.inner.static_groups << ", weak " << solver.columns);
    matrix const w = random_matrix(shape.rows, shape.cols, 9);
    hessian const h = hessian::of(inputs_with_outliers(shape.cols));
    problem_of const p{grid, granularity, range};

    Eigen::VectorXd const s = slow_sensitivities(w, dense(h), p);
    std::vector<index_t> ranked(static_cast<std::size_t>(shape.cols));
    std::iota(ranked.begin(), ranked.end(), 0);
    std::ranges::stable_sort(ranked, [&](index_t a, index_t b) { return s(a) > s(b); });
    std::vector<index_t> order(ranked.begin() + solver.columns, ranked.end());
    if (!solver.inner.activation_order) {
        std::ranges::sort(order);
    }
    std::vector<index_t> weak(ranked.begin(), ranked.begin() + solver.columns);
    order.insert(order.end(), weak.begin(), weak.end());
    auto const expected = test::reference_gptq(
        w, dense(h), p,
        {solver.inner.damping, solver.inner.activation_order, solver.inner.static_groups, 0, order, solver.columns});

    solution const found = solver.solve(w, h, p);
    ASSERT_EQ(found.shape, shape);
    ASSERT_EQ(found.weak.count(), solver.columns);
    packed_matrix const packed = pack(found);
    for (index_t col = 0; col < shape.cols; ++col) {
        auto const input = found.map.empty() ? col : index_t{(*found.map.order())[static_cast<std::size_t>(col)]};
        auto const place = std::ranges::find(weak, input) - weak.begin();
        index_t const k = found.weak.find(col);
        ASSERT_EQ(k >= 0, place < solver.columns) << "input " << input;
        for (index_t row = 0; row < shape.rows; ++row) {
            tile_scale const scale = found.scale_at(row, col);
            if (k >= 0) {
                ASSERT_EQ(decode(grid, found.code_at(row, col), scale), 0);
                double const value = expected.weak(row, place);
                ASSERT_NEAR(found.weak.at(k, row), value, 1e-3 * std::abs(value) + 1e-6);
                ASSERT_EQ(packed.stored_at(row, col), found.weak.at(k, row));
            } else {
                ASSERT_EQ(scale, expected.scales[static_cast<std::size_t>(row)][static_cast<std::size_t>(input)]);
                ASSERT_EQ(found.code_at(row, col), expected.codes(row, input)) << "row " << row << ", input " << input;
            }
        }
    }
    EXPECT_NEAR(found.report.loss, expected.loss, 1e-6 * expected.loss);
    EXPECT_EQ(found.report.dead_columns, 1);
}

TEST(owq, gives_the_codes_and_weak_columns_of_the_published_steps) {
    for (bool const act : {false, true}) {
        for (index_t const weak : {1, 4}) {
            owq<> const solver{.inner = {.activation_order = act}, .columns = weak};
            expect_published(int_grid<3>{}, minmax_range{}, {20, 67}, {1, 0}, solver);
            expect_published(int_grid<4>{}, minmax_range{}, {9, 64}, {1, 16}, solver);
            expect_published(int_grid<2>{}, minmax_range{}, {9, 50}, {4, 7}, solver);
            expect_published(e2m1{}, absmax_range{}, {9, 64}, {1, 0}, solver);
            expect_published(nf4{}, absmax_range{}, {9, 40}, {0, 0}, solver);
            owq<> fixed = solver;
            fixed.inner.static_groups = true;
            expect_published(int_grid<3>{}, minmax_range{}, {9, 64}, {1, 16}, fixed);
        }
    }
}

TEST(owq, without_weak_columns_is_its_inner_solver) {
    matrix const w = random_matrix(9, 64, 1);
    hessian const h = hessian::of(inputs_with_outliers(64));
    EXPECT_EQ((owq<>{.inner = {.activation_order = true}}.solve(w, h, int3_rows).codes),
              gptq<>{.activation_order = true}.solve(w, h, int3_rows).codes);
    EXPECT_EQ(owq<rtn>{}.solve(w, h, int3_rows).codes, rtn{}.solve(w, {}, int3_rows).codes);
}

/// |W x - Q x|^2 over the inputs.
double output_error(matrix const& w, solution const& s, hessian const& h) {
    return h.quadratic(w - dequantize(pack(s)));
}

template <class Inner> void expect_less_error(Inner const& inner) {
    matrix const w = random_matrix(40, 96, 1);
    hessian const h = hessian::of(inputs_with_outliers(96));
    double const none = output_error(w, owq<Inner>{.inner = inner}.solve(w, h, int3_rows), h);
    owq<Inner> const still{.inner = inner, .columns = 6, .compensate = false};
    double const left = output_error(w, still.solve(w, h, int3_rows), h);
    solution const s = owq<Inner>{.inner = inner, .columns = 6}.solve(w, h, int3_rows);
    double const moved = output_error(w, s, h);
    EXPECT_LT(left, 0.8 * none);
    EXPECT_LT(moved, left);
    thread_team three(3);
    solution const again = owq<Inner>{.inner = inner, .columns = 6}.solve(w, h, int3_rows, three);
    EXPECT_EQ(again.codes, s.codes);
    EXPECT_EQ(again.weak, s.weak);
    EXPECT_EQ(again.scales, s.scales);
}

TEST(owq, serves_any_solver) {
    expect_less_error(rtn{});
    expect_less_error(gptq<>{});
    expect_less_error(gptq<float>{.activation_order = true});
    expect_less_error(obq{});
}

TEST(owq, leaves_weak_columns_as_they_are_where_they_shall_not_compensate) {
    matrix const w = random_matrix(9, 64, 1);
    hessian const h = hessian::of(inputs_with_outliers(64));
    for (auto const format : {float_format::f16, float_format::bf16, float_format::f32}) {
        solution const s = owq<>{.columns = 4, .compensate = false, .format = format}.solve(w, h, int3_rows);
        std::vector<std::int32_t> others;
        for (std::int32_t j = 0; j < 64; ++j) {
            if (s.weak.find(j) < 0) {
                others.push_back(j);
            }
        }
        EXPECT_EQ(s.weak.format(), format);
        weak_columns rounded(s.weak.columns(), 9, format);
        for (index_t k = 0; k < 4; ++k) {
            for (index_t row = 0; row < 9; ++row) {
                rounded.set(k, row, w(row, s.weak.columns()[static_cast<std::size_t>(k)]));
            }
        }
        EXPECT_EQ(s.weak, rounded);
        // The others are those of GPTQ on them alone.
        solution const alone = gptq<>{}.solve(take_columns(w, others), h.restricted_to(others), int3_rows);
        for (index_t row = 0; row < 9; ++row) {
            for (index_t k = 0; k < 60; ++k) {
                EXPECT_EQ(s.code_at(row, others[static_cast<std::size_t>(k)]), alone.code_at(row, k));
            }
        }
    }
}

TEST(owq, follows_the_correction_of_a_solver_that_needs_the_float_model) {
    matrix const floats = inputs_with_outliers(64);
    matrix const x = 0.9F * floats + random_matrix(floats.rows(), 64, 4, 0.05F);
    layer_inputs known(64);
    known.add(x, floats);
    matrix const w = random_matrix(9, 64, 1);
    solution const s = owq<qronos<>>{.columns = 4}.solve(w, known, int3_rows);
    solution const expected = owq<>{.columns = 4}.solve(qronos<>{}.correct(w, known), known.hessian(), int3_rows);
    EXPECT_EQ(s.codes, expected.codes);
    EXPECT_EQ(s.weak, expected.weak);
    EXPECT_NE(s.codes, (owq<>{.columns = 4}.solve(w, known.hessian(), int3_rows).codes));
}

TEST(owq, never_chooses_inputs_that_were_always_zero_and_says_how_many_are_missing) {
    matrix x = matrix::Zero(50, 8);
    x.col(3) = random_matrix(50, 1, 1);
    x.col(6) = random_matrix(50, 1, 2);
    matrix const w = random_matrix(4, 8, 3);
    solution const s = owq<>{.columns = 5}.solve(w, hessian::of(x), int3_rows);
    EXPECT_EQ(s.weak.columns(), (std::vector<std::int32_t>{3, 6}));
    EXPECT_EQ(s.report.weak_missing, 3);

    EXPECT_EQ(failure_message([&] { owq<>{.columns = 5}.solve(w, hessian(8), int3_rows); }),
              "hessian: has seen no tokens");
    EXPECT_EQ(failure_message([&] { owq<rtn>{.columns = 5}.solve(w, hessian(8), int3_rows); }),
              "hessian: has seen no tokens");
    solution const blind = owq<>{.inner = {.or_rtn = true}, .columns = 5}.solve(w, hessian(8), int3_rows);
    EXPECT_TRUE(blind.weak.empty());
    EXPECT_EQ(blind.report.weak_missing, 5);
    EXPECT_EQ(blind.report.fallback, "no input was ever seen");
    EXPECT_EQ(blind.codes, rtn{}.solve(w, {}, int3_rows).codes);
}

TEST(owq, says_why_weak_columns_were_not_compensated) {
    basic_matrix<double> indefinite = basic_matrix<double>::Constant(8, 8, 1e6);
    indefinite.diagonal().setOnes();
    matrix const w = random_matrix(4, 8, 3);
    hessian const h(indefinite, 2);
    solution const s = owq<>{.inner = {.or_rtn = true}, .columns = 2}.solve(w, h, int3_rows);
    EXPECT_EQ(s.report.fallback, "the Hessian could not be factored");
    EXPECT_GT(s.report.damping_raised, 0);
    EXPECT_EQ(s.weak.count(), 2);
    auto const complains = [&](auto const& solver) {
        return failure_message([&] { solver.solve(w, h, int3_rows); })
            .starts_with("hessian: could not be factored even with a damping of 1");
    };
    EXPECT_TRUE(complains(owq<>{.columns = 2}));
    EXPECT_TRUE(complains(owq<rtn>{.columns = 2}));
    EXPECT_EQ((owq<rtn>{.columns = 2, .compensate = false}.solve(w, h, int3_rows).weak.count()), 2);
}

TEST(owq, complains_of_what_it_cannot_do) {
    matrix const w = random_matrix(4, 8, 3);
    matrix x = random_matrix(50, 8, 1);
    hessian const h = hessian::of(x);
    auto const fails = [&](index_t columns, matrix const& weights, hessian const& known, problem const& p) {
        return failure_message([&] { owq<>{.columns = columns}.solve(weights, known, p); });
    };
    EXPECT_EQ(fails(8, w, h, int3_rows),
              "weak columns: 8 of 8 inputs are asked for; at least one must be left to quantize");
    EXPECT_EQ(fails(-1, w, h, int3_rows),
              "weak columns: -1 of 8 inputs are asked for; at least one must be left to quantize");
    EXPECT_EQ(fails(2, w, hessian(9), int3_rows), "hessian: has 9 features, the weights have 8 columns");
    x(7, 5) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(fails(2, w, hessian::of(x), int3_rows), "hessian: input 5 was not finite");
    matrix const large = 1e6F * w;
    problem_of const wide{int_grid<3>{}, per_channel{}, minmax_range{}, float_format::f32};
    EXPECT_NE(fails(2, large, h, wide).find("is too large for their format"), std::string::npos);
    EXPECT_EQ((owq<>{.columns = 2, .format = float_format::bf16}.solve(large, h, wide).weak.count()), 2);
    matrix beyond = w; // rounded up, it would be no float
    beyond(2, 3) = std::numeric_limits<float>::max();
    beyond(2, 4) = -0.6F * beyond(2, 3);
    EXPECT_TRUE(contains(fails(2, beyond, h, wide), "weak columns: "));
    matrix broken = w;
    broken(2, 3) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(fails(2, broken, h, int3_rows), "weights: the weight at row 2, column 3 is not finite");
}

struct odd_values {
    static constexpr std::array<float, 4> values{-3, -1, 1, 3};
};

TEST(owq, needs_a_grid_with_zero) {
    problem_of const p{codebook_grid<odd_values>{}, per_channel{}, absmax_range{}};
    EXPECT_EQ(failure_message(
                  [&] { owq<>{.columns = 2}.solve(random_matrix(4, 8, 3), hessian::of(random_matrix(50, 8, 1)), p); }),
              "weak columns: need a grid that has 0");
}

TEST(owq, rounds_the_weights_of_dead_inputs_to_nearest) {
    test::expect_dead_inputs_rounded_to_nearest(owq<>{.columns = 2});
    test::expect_dead_inputs_rounded_to_nearest(owq<obq>{.columns = 2});
    test::expect_dead_inputs_rounded_to_nearest(owq<gptaq<>>{.columns = 2});
    test::expect_dead_inputs_rounded_to_nearest(
        owq<>{.inner = {.activation_order = true}, .columns = 2, .compensate = false});
}

} // namespace
