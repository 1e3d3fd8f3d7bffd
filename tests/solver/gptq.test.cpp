// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/gptq.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/fallbacks.hpp"
#include "solver/reference_gptq.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::dense;
using test::random_matrix;

/// Inputs of which the third is always zero.
matrix inputs_with_a_dead_one(index_t features) {
    matrix x = correlated_inputs(3 * features + 7, features, 1);
    if (features > 3) {
        x.col(2).setZero();
    }
    return x;
}

/// 0.5 tr(D H D^T) with the damped H; the diagonal elements of dead inputs are 1.
double damped_loss(matrix const& w, matrix const& numbers, hessian const& h, double damping) {
    Eigen::MatrixXd m = dense(h);
    for (index_t j = 0; j < m.rows(); ++j) {
        if (m(j, j) == 0) {
            m(j, j) = 1;
        }
    }
    m.diagonal().array() += damping * m.diagonal().mean();
    Eigen::MatrixXd const d = w.cast<double>() - numbers.cast<double>();
    return 0.5 * (d * m).cwiseProduct(d).sum();
}

/// Keeps Eigen's products in their thread while it lives: for small ones starting threads takes longest.
struct one_eigen_thread {
    one_eigen_thread() { Eigen::setNbThreads(1); }
    one_eigen_thread(one_eigen_thread const&) = delete;
    one_eigen_thread& operator=(one_eigen_thread const&) = delete;
    ~one_eigen_thread() { Eigen::setNbThreads(0); }
};

/// Codes, scales and loss are those of the published algorithm.
template <Grid G, class Range>
void expect_published(G const& grid, Range const& range, extents shape, per_tile granularity, gptq<> const& solver) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.cols << ", tile " << granularity.rows << " x "
                                    << granularity.cols << ", order " << solver.activation_order << ", static "
                                    << solver.static_groups << ", stale " << solver.stale_columns);
    one_eigen_thread const guard;
    matrix const w = random_matrix(shape.rows, shape.cols, 9);
    hessian const h = hessian::of(inputs_with_a_dead_one(shape.cols));
    problem_of const p{grid, granularity, range};
    auto const expected = test::reference_gptq(
        w, dense(h), p, {solver.damping, solver.activation_order, solver.static_groups, solver.stale_columns});
    solution const s = solver.solve(w, h, p);
    ASSERT_EQ(s.shape, shape);
    for (index_t col = 0; col < shape.cols; ++col) {
        auto const input = s.map.empty() ? col : index_t{(*s.map.order())[static_cast<std::size_t>(col)]};
        for (index_t row = 0; row < shape.rows; ++row) {
            tile_scale const scale = s.scale_at(row, col);
            ASSERT_EQ(scale, expected.scales[static_cast<std::size_t>(row)][static_cast<std::size_t>(input)]);
            ASSERT_EQ(scale.scale, static_cast<float>(half{scale.scale}));
            ASSERT_EQ(s.code_at(row, col), expected.codes(row, input)) << "row " << row << ", input " << input;
        }
    }
    EXPECT_NEAR(s.report.loss, expected.loss, 1e-9 * expected.loss);
    double const identity = damped_loss(w, dequantize(pack(s)), h, s.report.damping);
    EXPECT_NEAR(s.report.loss, identity, 1e-10 * identity);
    EXPECT_EQ(s.report.damping, solver.damping);
    EXPECT_EQ(s.report.damping_raised, 0);
    EXPECT_EQ(s.report.dead_columns, shape.cols > 3 ? 1 : 0);
    EXPECT_TRUE(s.report.fallback.empty());
}

/// With and without activation order, static and stale groups.
template <Grid G, class Range> void expect_published(G const& grid, Range const& range, per_tile granularity) {
    for (bool const order : {false, true}) {
        for (extents const shape : {extents{1, 50}, {70, 103}, {5, 7}}) {
            expect_published(grid, range, shape, granularity, {.activation_order = order});
            expect_published(grid, range, shape, granularity, {.activation_order = order, .static_groups = true});
            expect_published(grid, range, shape, granularity, {.activation_order = order, .stale_columns = 32});
            ASSERT_FALSE(testing::Test::HasFatalFailure());
        }
    }
}

TEST(gptq, is_the_published_algorithm_per_channel) {
    per_tile const channel{1, 0};
    expect_published(int_grid<4>{}, minmax_range{}, channel);
    expect_published(int_grid<3>{}, mse_range{}, channel);
    expect_published(int_grid<4, zero::none>{}, absmax_range{}, channel);
    expect_published(e2m1{}, absmax_range{}, channel);
    expect_published(ternary{}, absmax_range{}, channel);
    expect_published(nf4{}, absmax_range{}, channel);
    expect_published(test::powers_of_two{}, absmax_range{}, channel);
}

TEST(gptq, is_the_published_algorithm_with_groups) {
    for (index_t const width : {8, 16, 24, 48}) {
        expect_published(int_grid<4>{}, minmax_range{}, {1, width});
        expect_published(int_grid<2>{}, minmax_range{}, {1, width});
        expect_published(e2m1{}, absmax_range{}, {1, width});
    }
    expect_published(int_grid<3>{}, minmax_range{}, {1, 1});
    expect_published(int_grid<3, zero::none>{}, absmax_range{}, {1, 16});
    expect_published(ternary{}, absmax_range{}, {1, 24});
    expect_published(nf4{}, mse_range{}, {1, 16});
}

TEST(gptq, is_the_published_algorithm_with_blocks_and_one_scale) {
    expect_published(int_grid<4>{}, minmax_range{}, {0, 0});
    expect_published(int_grid<4>{}, minmax_range{}, {3, 0});
    expect_published(int_grid<4>{}, minmax_range{}, {3, 16});
    expect_published(e2m1{}, absmax_range{}, {0, 16});
    expect_published(e2m1{}, absmax_range{}, {32, 32});
}

TEST(gptq, is_the_published_algorithm_for_the_smallest_weights) {
    for (extents const shape : {extents{1, 1}, {9, 1}, {1, 2}, {130, 3}}) {
        for (per_tile const granularity : {per_tile{1, 0}, {1, 2}, {0, 0}}) {
            expect_published(int_grid<4>{}, minmax_range{}, shape, granularity, {});
        }
    }
}

TEST(gptq, uncorrelated_inputs_of_one_size_give_rounding_to_nearest) {
    matrix const w = random_matrix(30, 40, 1);
    hessian const h = hessian::of(matrix::Identity(40, 40));
    for (per_tile const granularity : {per_tile{1, 0}, {1, 16}}) {
        problem_of const p{int_grid<3>{}, granularity, minmax_range{}};
        solution const s = gptq<>{}.solve(w, h, p);
        solution const nearest = rtn{}.solve(w, {}, p);
        EXPECT_EQ(s.codes, nearest.codes);
        EXPECT_EQ(s.scales, nearest.scales);
    }
}

TEST(gptq, the_length_of_leaves_changes_nothing) {
    matrix const w = random_matrix(30, 101, 1);
    hessian const h = hessian::of(correlated_inputs(300, 101, 1));
    for (per_tile const granularity : {per_tile{1, 0}, {1, 24}}) {
        problem_of const p{int_grid<3>{}, granularity, minmax_range{}};
        solution const expected = gptq<>{}.solve(w, h, p);
        for (index_t const leaf : {1, 2, 3, 8, 17, 32, 64, 200}) {
            solution const s = gptq<>{.leaf = leaf}.solve(w, h, p);
            EXPECT_EQ(s.codes, expected.codes) << leaf;
            EXPECT_EQ(s.scales, expected.scales) << leaf;
        }
    }
}

TEST(gptq, a_sweep_in_float_is_nearly_as_good) {
    matrix const w = random_matrix(40, 120, 1);
    hessian const h = hessian::of(correlated_inputs(400, 120, 1));
    for (per_tile const granularity : {per_tile{1, 0}, {1, 24}}) {
        problem_of const p{int_grid<4>{}, granularity, minmax_range{}};
        solution const wide = gptq<double>{}.solve(w, h, p);
        solution const narrow = gptq<float>{}.solve(w, h, p);
        EXPECT_NEAR(narrow.report.loss, wide.report.loss, 0.02 * wide.report.loss);
        auto const agreeing = std::inner_product(wide.codes.begin(), wide.codes.end(), narrow.codes.begin(), 0,
                                                 std::plus{}, std::equal_to{});
        EXPECT_GT(agreeing, 0.95 * 40 * 120);
    }
}

TEST(gptq, activation_order_follows_a_permutation_of_the_inputs) {
    // Small integers, so that both Hessians are exact.
    matrix const x = (40 * correlated_inputs(300, 61, 1)).array().round();
    matrix const w = random_matrix(20, 61, 2);
    hessian const h = hessian::of(x);
    Eigen::VectorXd const diagonal = h.diagonal();
    ASSERT_EQ(std::set<double>(diagonal.begin(), diagonal.end()).size(), 61U) << "equal inputs have no order";
    auto const shuffle = factor(hessian::of(random_matrix(99, 61, 3)), {0.01, true}).order;
    for (per_tile const granularity : {per_tile{1, 0}, {1, 16}}) {
        problem_of const p{int_grid<3>{}, granularity, minmax_range{}};
        gptq<> const solver{.activation_order = true};
        matrix const natural = dequantize(pack(solver.solve(w, h, p)));
        matrix const shuffled_x = x(Eigen::all, shuffle);
        matrix const shuffled_w = w(Eigen::all, shuffle);
        matrix const shuffled = dequantize(pack(solver.solve(shuffled_w, hessian::of(shuffled_x), p)));
        EXPECT_TRUE(shuffled == natural(Eigen::all, shuffle));
    }
}

TEST(gptq, only_groups_that_follow_the_activation_order_are_stored_in_it) {
    matrix const w = random_matrix(4, 40, 1);
    hessian const h = hessian::of(correlated_inputs(100, 40, 1));
    auto const map_of = [&](per_tile granularity, gptq<> const& solver) {
        return solver.solve(w, h, problem_of{int_grid<4>{}, granularity, minmax_range{}}).map;
    };
    EXPECT_EQ(map_of({1, 16}, {.activation_order = true}), input_map(permutation{factor(h, {0.01, true}).order}, 40));
    EXPECT_TRUE(map_of({1, 16}, {.activation_order = true, .static_groups = true}).empty());
    EXPECT_TRUE(map_of({1, 0}, {.activation_order = true}).empty());
    EXPECT_TRUE(map_of({1, 16}, {}).empty());
}

TEST(gptq, loses_less_than_rounding_to_nearest) {
    matrix const w = random_matrix(32, 96, 1);
    hessian const h = hessian::of(correlated_inputs(500, 96, 1));
    auto const expect_less = [&](auto const& grid, auto const& range, per_tile granularity) {
        problem_of const p{grid, granularity, range};
        double const nearest = h.quadratic(w - dequantize(pack(rtn{}.solve(w, {}, p))));
        for (bool const order : {false, true}) {
            solution const s = gptq<>{.activation_order = order}.solve(w, h, p);
            EXPECT_LT(h.quadratic(w - dequantize(pack(s))), 0.8 * nearest);
        }
    };
    expect_less(int_grid<4>{}, minmax_range{}, {1, 0});
    expect_less(int_grid<3>{}, minmax_range{}, {1, 32});
    expect_less(e2m1{}, absmax_range{}, {1, 32});
    expect_less(nf4{}, absmax_range{}, {1, 0});
}

TEST(gptq, a_layer_that_saw_nothing_is_an_error_or_rounded_to_nearest) {
    test::expect_fallback_where_nothing_was_seen<gptq<>>();
}

TEST(gptq, a_hessian_that_cannot_be_factored_is_an_error_or_reported) {
    test::expect_fallback_where_no_factor_exists<gptq<>>();
}

TEST(gptq, damping_is_finite_and_not_negative) { test::expect_damping_checked<gptq<>>(); }

TEST(gptq, options_are_checked) {
    matrix const w = random_matrix(8, 40, 1);
    hessian const h = hessian::of(correlated_inputs(100, 40, 1));
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    auto const message = [&](gptq<> const& solver) { return failure_message([&] { solver.solve(w, h, p); }); };
    EXPECT_EQ(message({.leaf = 0}), "gptq: its leaf is 0, not positive");
    EXPECT_EQ(message({.leaf = -16}), "gptq: its leaf is -16, not positive");
    EXPECT_EQ(message({.stale_columns = -1}), "gptq: its number of stale columns is -1, not 0 or more");
    EXPECT_EQ(message({.stale_columns = 1000, .leaf = 1000}), "");
}

TEST(gptq, raised_damping_is_reported) {
    matrix const w = random_matrix(8, 60, 1);
    hessian const h = hessian::of(correlated_inputs(10, 60, 1)); // fewer tokens than features
    solution const s = gptq<>{.damping = 1e-14}.solve(w, h, problem_of{int_grid<4>{}, per_channel{}, minmax_range{}});
    EXPECT_GE(s.report.damping_raised, 1);
    EXPECT_GE(s.report.damping, 1e-3);
    EXPECT_TRUE(s.report.fallback.empty());
    double const identity = damped_loss(w, dequantize(pack(s)), h, s.report.damping);
    EXPECT_NEAR(s.report.loss, identity, 1e-9 * identity);
}

TEST(gptq, wrong_data_is_named) {
    matrix w = random_matrix(8, 40, 1);
    matrix x = correlated_inputs(100, 40, 1);
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    EXPECT_EQ(failure_message([&] { gptq<>{}.solve(w, hessian(39), p); }),
              "hessian: has 39 features, the weights have 40 columns");
    x(3, 5) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(failure_message([&] { gptq<>{}.solve(w, hessian::of(x), p); }), "hessian: input 5 was not finite");
    w(2, 3) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(failure_message([&] { gptq<>{}.solve(w, hessian(40), p); }),
              "weights: the weight at row 2, column 3 is not finite");
}

/// Pretends to have many workers, by whose number solvers cut their work.
struct pretender {
    index_t count;
    index_t workers() const { return count; }
    static void for_each(index_t n, function_ref<void(index_t)> f) { serial::for_each(n, f); }
};

#if !defined(EIGEN_USE_BLAS) // which may round differently in other pieces
TEST(gptq, pieces_do_not_change_a_bit) {
    matrix const w = random_matrix(199, 150, 1);
    hessian const h = hessian::of(correlated_inputs(400, 150, 1));
    problem_of const p{int_grid<3>{}, per_group<32>{}, minmax_range{}, float_format::f32};
    auto const expect_same = [&](auto const& solver) {
        solution const whole = solver.solve(w, h, p);
        for (index_t const count : {2, 3, 5, 8, 100}) {
            pretender executor{count};
            solution const s = solver.solve(w, h, p, executor);
            EXPECT_EQ(s.codes, whole.codes) << count;
            EXPECT_EQ(s.scales, whole.scales) << count;
            EXPECT_EQ(s.report.loss, whole.report.loss) << count;
        }
    };
    expect_same(gptq<>{});
    expect_same(gptq<float>{});
}

TEST(gptq, threads_do_not_change_a_bit) {
    matrix const w = random_matrix(200, 150, 1);
    hessian const h = hessian::of(correlated_inputs(400, 150, 1));
    for (per_tile const granularity : {per_tile{1, 0}, {1, 16}, {3, 16}}) {
        problem_of const p{int_grid<3>{}, granularity, minmax_range{}};
        gptq<> const solver{.activation_order = true};
        solution const serially = solver.solve(w, h, p);
        for (index_t const count : {1, 2, 3}) {
            thread_team many(count);
            solution const s = solver.solve(w, h, p, many);
            EXPECT_EQ(s.codes, serially.codes);
            EXPECT_EQ(s.scales, serially.scales);
            EXPECT_EQ(s.map, serially.map);
            EXPECT_EQ(s.report.loss, serially.report.loss);
        }
    }
}
#endif

TEST(gptq, rounds_the_weights_of_dead_inputs_to_nearest) {
    test::expect_dead_inputs_rounded_to_nearest(gptq<>{});
    test::expect_dead_inputs_rounded_to_nearest(gptq<float>{.activation_order = true});
}

} // namespace
