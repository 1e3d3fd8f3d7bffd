// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <Eigen/Dense>
#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/obq.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/fallbacks.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::dense;
using test::random_matrix;

static_assert(Solver<obq>);

/// The damped Hessian; the diagonal elements of dead inputs are 1.
Eigen::MatrixXd damped(hessian const& h, double damping) {
    Eigen::MatrixXd m = dense(h);
    for (index_t j = 0; j < m.rows(); ++j) {
        if (m(j, j) == 0) {
            m(j, j) = 1;
        }
    }
    m.diagonal().array() += damping * m.diagonal().mean();
    return m;
}

/// 0.5 tr(D H D^T) with the damped H.
double loss_at(matrix const& w, matrix const& numbers, hessian const& h, double damping) {
    Eigen::MatrixXd const d = w.cast<double>() - numbers.cast<double>();
    return 0.5 * (d * damped(h, damping)).cwiseProduct(d).sum();
}

/// What the published code chooses for a row.
struct reference_row {
    std::vector<code> codes;
    double loss = 0;
};

/// OBQ as published, one weight after the other: a dense inverse, eliminated from at every step. `h` is damped; the
/// rows and columns of zeros to keep are those of the identity.
reference_row reference_obq(Eigen::VectorXd w, Eigen::MatrixXd h, std::vector<tile_scale> const& scales,
                            problem const& p, obq const& options) {
    auto const n = static_cast<std::size_t>(w.size());
    if (options.keep_zeros) {
        for (index_t j = 0; j < w.size(); ++j) {
            if (w(j) == 0) {
                h.row(j).setZero();
                h.col(j).setZero();
                h(j, j) = 1;
            }
        }
    }
    Eigen::MatrixXd inverse = h.inverse();
    std::vector<bool> done(n);
    reference_row answer;
    answer.codes.resize(n);
    for (std::size_t step = 0; step < n; ++step) {
        double least_cost = std::numeric_limits<double>::infinity();
        double largest_error = -1;
        bool outliers = false;
        std::size_t cheapest = 0;
        std::size_t farthest = 0;
        std::vector<float> numbers(n);
        std::vector<code> codes(n);
        for (std::size_t j = 0; j < n; ++j) {
            auto const i = static_cast<index_t>(j);
            if (done[j]) {
                continue;
            }
            auto const t = static_cast<float>(w(i));
            p.round(1, &t, &scales[j].scale, &scales[j].zero, &codes[j], &numbers[j]);
            double const error = std::pow(w(i) - double{numbers[j]}, 2);
            if (error / inverse(i, i) < least_cost) {
                least_cost = error / inverse(i, i);
                cheapest = j;
            }
            if (error > largest_error) {
                largest_error = error;
                farthest = j;
            }
            outliers = outliers || error > 0.25 * std::pow(double{scales[j].scale}, 2);
        }
        bool const far = options.outliers_first && outliers && w(static_cast<index_t>(cheapest)) != 0;
        std::size_t const chosen = far ? farthest : cheapest;
        auto const c = static_cast<index_t>(chosen);
        double const error = w(c) - double{numbers[chosen]};
        answer.codes[chosen] = codes[chosen];
        answer.loss += 0.5 * error * error / inverse(c, c);
        Eigen::VectorXd const column = inverse.col(c);
        w -= column * error / inverse(c, c);
        inverse -= column * column.transpose() / column(c);
        done[chosen] = true;
    }
    return answer;
}

/// Codes and loss are those of the published algorithm, and the loss is that of the codes.
void expect_published_obq(problem const& p, matrix const& w, hessian const& h, obq const& solver) {
    solution const s = solver.solve(w, h, p);
    ASSERT_EQ(s.shape, shape_of(w));
    EXPECT_TRUE(s.map.empty());
    EXPECT_EQ(s.report.damping, solver.damping);
    EXPECT_EQ(s.report.damping_raised, 0);
    EXPECT_TRUE(s.report.fallback.empty());
    solution fitted = p.begin(w);
    p.fit_all(w, fitted, {});
    ASSERT_EQ(s.scales, fitted.scales);
    Eigen::MatrixXd const m = damped(h, solver.damping);
    double loss = 0;
    for (index_t row = 0; row < w.rows(); ++row) {
        std::vector<tile_scale> scales;
        for (index_t col = 0; col < w.cols(); ++col) {
            scales.push_back(s.scale_at(row, col));
        }
        reference_row const expected = reference_obq(w.row(row).cast<double>(), m, scales, p, solver);
        loss += expected.loss;
        for (index_t col = 0; col < w.cols(); ++col) {
            ASSERT_EQ(s.code_at(row, col), expected.codes[static_cast<std::size_t>(col)])
                << "row " << row << ", input " << col;
        }
    }
    EXPECT_NEAR(s.report.loss, loss, 1e-9 * loss);
    double const identity = loss_at(w, dequantize(pack(s)), h, s.report.damping);
    EXPECT_NEAR(s.report.loss, identity, 1e-9 * identity);
}

/// Weights of which about half are 0, at random.
matrix half_zero(index_t rows, index_t cols, unsigned seed) {
    matrix const keep = random_matrix(rows, cols, seed + 100);
    return (keep.array() > 0).select(random_matrix(rows, cols, seed), 0.0F);
}

/// With and without outliers, zeros and dead inputs, and gathering few and many steps.
template <Grid G, class Range> void expect_published_obq(G const& grid, Range const& range, per_tile granularity) {
    problem_of const p{grid, granularity, range};
    unsigned seed = 1;
    for (extents const shape : {extents{3, 90}, {7, 53}, {1, 9}}) {
        matrix x = correlated_inputs(2 * shape.cols, shape.cols, seed);
        x.col(shape.cols / 3).setZero();
        hessian const h = hessian::of(x);
        for (bool const outliers : {false, true}) {
            for (index_t const delay : {1, 5, 64}) {
                SCOPED_TRACE(testing::Message()
                             << shape.rows << " x " << shape.cols << ", tile " << granularity.rows << " x "
                             << granularity.cols << ", outliers " << outliers << ", delay " << delay);
                obq const solver{.outliers_first = outliers, .delay = delay};
                expect_published_obq(p, random_matrix(shape.rows, shape.cols, ++seed), h, solver);
                ASSERT_FALSE(testing::Test::HasFatalFailure());
            }
            if (dequantize(pack(rtn{}.solve(matrix::Zero(1, 1), {}, p)))(0, 0) == 0) {
                obq const solver{.outliers_first = outliers, .keep_zeros = true, .delay = 8};
                expect_published_obq(p, half_zero(shape.rows, shape.cols, ++seed), h, solver);
                ASSERT_FALSE(testing::Test::HasFatalFailure());
            }
        }
    }
}

TEST(obq, is_the_published_algorithm_per_channel) {
    per_tile const channel{1, 0};
    expect_published_obq(int_grid<4>{}, minmax_range{}, channel);
    expect_published_obq(int_grid<3>{}, mse_range{}, channel);
    expect_published_obq(int_grid<2>{}, minmax_range{}, channel);
    expect_published_obq(int_grid<4, zero::none>{}, mse_range{}, channel);
    expect_published_obq(e2m1{}, absmax_range{}, channel);
    expect_published_obq(ternary{}, absmax_range{}, channel);
    expect_published_obq(int_grid<1, zero::none>{}, absmax_range{}, channel);
}

TEST(obq, is_the_published_algorithm_with_groups_and_blocks) {
    expect_published_obq(int_grid<4>{}, minmax_range{}, {1, 16});
    expect_published_obq(int_grid<3>{}, mse_range{}, {1, 32});
    expect_published_obq(int_grid<2>{}, minmax_range{}, {1, 1});
    expect_published_obq(e2m1{}, absmax_range{}, {1, 24});
    expect_published_obq(int_grid<4>{}, minmax_range{}, {0, 0});
    expect_published_obq(int_grid<3>{}, minmax_range{}, {2, 16});
}

TEST(obq, is_the_published_algorithm_for_more_inputs_than_a_panel_has) {
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    hessian const h = hessian::of(correlated_inputs(400, 203, 1));
    for (index_t const delay : {1, 17, 64, 300}) {
        expect_published_obq(p, random_matrix(2, 203, 2), h, {.delay = delay});
    }
}

TEST(obq, is_the_published_algorithm_for_the_smallest_weights) {
    for (extents const shape : {extents{1, 1}, {9, 1}, {1, 2}, {1, 3}, {17, 3}}) {
        hessian const h = hessian::of(correlated_inputs(3 * shape.cols + 7, shape.cols, 1));
        for (per_tile const granularity : {per_tile{1, 0}, {1, 2}, {0, 0}}) {
            problem_of const p{int_grid<4>{}, granularity, minmax_range{}};
            expect_published_obq(p, random_matrix(shape.rows, shape.cols, 3), h, {});
        }
    }
}

TEST(obq, uncorrelated_inputs_of_one_size_give_rounding_to_nearest) {
    matrix const w = random_matrix(30, 40, 1);
    hessian const h = hessian::of(matrix::Identity(40, 40));
    for (bool const outliers : {false, true}) {
        for (per_tile const granularity : {per_tile{1, 0}, {1, 16}}) {
            problem_of const p{int_grid<3>{}, granularity, minmax_range{}};
            solution const s = obq{.outliers_first = outliers}.solve(w, h, p);
            solution const nearest = rtn{}.solve(w, {}, p);
            EXPECT_EQ(s.codes, nearest.codes);
            EXPECT_EQ(s.scales, nearest.scales);
        }
    }
}

TEST(obq, equal_costs_take_the_first_input) {
    // Two inputs that are exchangeable and two weights half a step from the grid: the first rounded is rounded to even,
    // and what it leaves pushes the other across.
    matrix const x = (matrix(2, 2) << 2, 1, 1, 2).finished();
    hessian const h = hessian::of(x);
    struct whole final : problem {
        whole() : problem({.format = float_format::f32, .has_zero = true, .numbers = {0, 15}, .table = all()}) {}
        static std::vector<float> all() {
            auto const table = table_of(int_grid<4>{});
            return {table.begin(), table.end()};
        }
        extents tile(extents shape) const override { return {1, shape.cols}; }
        tile_scale fit(matrix_view, tile_place) const override { return {1, 0}; }
        void round(index_t n, float const* weights, float const*, float const*, code* codes,
                   float* numbers) const override {
            for (index_t i = 0; i < n; ++i) {
                numbers[i] = std::nearbyint(weights[i]);
                codes[i] = static_cast<code>(numbers[i]);
            }
        }
    };
    matrix const w = (matrix(1, 2) << 0.5F, 0.5F).finished();
    EXPECT_EQ(obq{}.solve(w, h, whole{}).codes, (std::vector<code>{0, 1}));
}

TEST(obq, loses_less_than_gptq_where_inputs_are_of_like_size) {
    for (unsigned seed = 0; seed < 6; ++seed) {
        matrix const w = random_matrix(16, 160, 4 * seed + 1);
        matrix const x = random_matrix(400, 20, 4 * seed + 2) * random_matrix(20, 160, 4 * seed + 3, 0.2F) +
                         random_matrix(400, 160, 4 * seed + 4, 0.3F);
        hessian const h = hessian::of(x);
        problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
        EXPECT_LT(obq{}.solve(w, h, p).report.loss, 0.97 * gptq<>{}.solve(w, h, p).report.loss);
    }
}

TEST(obq, a_layer_that_saw_nothing_is_an_error_or_rounded_to_nearest) {
    test::expect_fallback_where_nothing_was_seen<obq>();
}

TEST(obq, a_hessian_that_cannot_be_factored_is_an_error_or_reported) {
    test::expect_fallback_where_no_factor_exists<obq>();
}

TEST(obq, options_are_checked) {
    test::expect_damping_checked<obq>();
    matrix const w = random_matrix(8, 40, 1);
    hessian const h = hessian::of(correlated_inputs(100, 40, 1));
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    EXPECT_EQ(failure_message([&] { obq{.delay = 0}.solve(w, h, p); }), "obq: its delay is 0, not positive");
    EXPECT_EQ(failure_message([&] { obq{}.solve(w, factor(h, {.by_activation = true}), p); }),
              "obq: needs a factor with inputs in natural order");
}

TEST(obq, raised_damping_is_reported) {
    matrix const w = random_matrix(8, 60, 1);
    hessian const h = hessian::of(correlated_inputs(10, 60, 1)); // fewer tokens than features
    solution const s = obq{.damping = 1e-14}.solve(w, h, problem_of{int_grid<4>{}, per_channel{}, minmax_range{}});
    EXPECT_GE(s.report.damping_raised, 1);
    EXPECT_GE(s.report.damping, 1e-3);
    EXPECT_TRUE(s.report.fallback.empty());
    double const identity = loss_at(w, dequantize(pack(s)), h, s.report.damping);
    EXPECT_NEAR(s.report.loss, identity, 1e-9 * identity);
}

TEST(obq, a_nearly_singular_hessian_keeps_the_loss_true) {
    // Of rank 30; what is left of its other directions is 1e-9 of the diagonal.
    matrix const w = random_matrix(8, 150, 1);
    hessian const h = hessian::of((8 * correlated_inputs(30, 150, 1)).array().round()); // exact
    solution const s = obq{.damping = 1e-9}.solve(w, h, problem_of{int_grid<4>{}, per_channel{}, minmax_range{}});
    ASSERT_EQ(s.report.damping_raised, 0);
    double const identity = loss_at(w, dequantize(pack(s)), h, s.report.damping);
    EXPECT_NEAR(s.report.loss, identity, 1e-5 * identity);
}

TEST(obq, rounds_the_weights_of_dead_inputs_to_nearest) {
    test::expect_dead_inputs_rounded_to_nearest(obq{});
    test::expect_dead_inputs_rounded_to_nearest(obq{.keep_zeros = true});
}

TEST(obq, zeros_stay_where_that_is_asked) {
    matrix w = half_zero(6, 80, 1);
    w.row(2).setZero();
    w.row(3) = random_matrix(1, 80, 2);
    // The first weight is on the grid, so that it is the cheapest before any zero, and others are far from it.
    w.col(0).setConstant(6);
    w.col(1).setConstant(5.125F);
    hessian const h = hessian::of(correlated_inputs(200, 80, 1));
    problem_of const p{e2m1{}, per_channel{}, absmax_range{}};
    matrix const kept = dequantize(pack(obq{.keep_zeros = true}.solve(w, h, p)));
    EXPECT_EQ((w.array() == 0 && kept.array() != 0).count(), 0);
    matrix const moved = dequantize(pack(obq{}.solve(w, h, p)));
    EXPECT_GT((w.array() == 0 && moved.array() != 0).count(), 0);
    EXPECT_TRUE(kept.row(3) == moved.row(3)) << "a row without zeros knows nothing of it";
}

TEST(obq, zeros_that_the_grid_does_not_have_cannot_stay) {
    hessian const h = hessian::of(correlated_inputs(100, 40, 1));
    problem_of const p{int_grid<1, zero::none>{}, per_channel{}, absmax_range{}};
    obq const solver{.keep_zeros = true, .or_rtn = true};
    matrix w = random_matrix(4, 40, 1);
    EXPECT_EQ(solver.solve(w, h, p).codes, obq{}.solve(w, h, p).codes);
    w(2, 7) = 0;
    for (hessian const& known : {h, hessian(40)}) {
        EXPECT_EQ(failure_message([&] { solver.solve(w, known, p); }),
                  "weights: the zero at row 2, column 7 cannot be kept: the grid has no zero there");
    }
}

TEST(obq, wrong_data_is_named) {
    matrix w = random_matrix(8, 40, 1);
    matrix x = correlated_inputs(100, 40, 1);
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    EXPECT_EQ(failure_message([&] { obq{}.solve(w, hessian(39), p); }),
              "hessian: has 39 features, the weights have 40 columns");
    x(3, 5) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(failure_message([&] { obq{}.solve(w, hessian::of(x), p); }), "hessian: input 5 was not finite");
    w(2, 3) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(failure_message([&] { obq{}.solve(w, hessian(40), p); }),
              "weights: the weight at row 2, column 3 is not finite");
}

TEST(inverse_from_factor, is_the_inverse_of_the_damped_hessian) {
    for (index_t const n : {1, 2, 63, 64, 65, 150}) {
        hessian const h = hessian::of(correlated_inputs(3 * n, n, 1));
        Eigen::MatrixXd const expected = damped(h, 0.01).inverse().triangularView<Eigen::Lower>();
        Eigen::MatrixXd const inverse = inverse_from_factor(factor(h, {0.01, false}).r);
        EXPECT_LE((inverse - expected).cwiseAbs().maxCoeff(), 1e-11 * expected.cwiseAbs().maxCoeff());
    }
}

TEST(shrinking_inverse, is_the_inverse_of_what_is_left) {
    constexpr index_t n = 100;
    hessian const h = hessian::of(correlated_inputs(300, n, 1));
    Eigen::MatrixXd const m = damped(h, 0.01);
    for (index_t const delay : {1, 7, 64, 200}) {
        shrinking_inverse inverse(n, delay);
        inverse.reset(inverse_from_factor(factor(h, {0.01, false}).r), m.diagonal().cwiseInverse());
        std::vector<index_t> left(n);
        for (index_t i = 0; i < n; ++i) {
            left[static_cast<std::size_t>(i)] = i;
        }
        while (inverse.size() > 0) {
            index_t const size = inverse.size();
            index_t const j = size % 3 == 0 ? size - 1 : size * 7 % 11 * size / 11;
            Eigen::MatrixXd const expected = m(left, left).inverse();
            ASSERT_LE((inverse.diagonal() - expected.diagonal()).cwiseAbs().maxCoeff(),
                      1e-11 * expected.diagonal().maxCoeff());
            Eigen::VectorXd u = expected.col(j) / std::sqrt(expected(j, j));
            u(j) = u(size - 1);
            ASSERT_LE((inverse.remove(j) - u.head(size - 1)).norm(), 1e-10 * u.norm());
            left[static_cast<std::size_t>(j)] = left.back();
            left.pop_back();
        }
    }
}

TEST(obq, threads_do_not_change_a_bit) {
    matrix const w = half_zero(37, 150, 1);
    hessian const h = hessian::of(correlated_inputs(400, 150, 1));
    for (per_tile const granularity : {per_tile{1, 0}, {3, 16}}) {
        for (bool const keep : {false, true}) {
            problem_of const p{int_grid<3>{}, granularity, minmax_range{}};
            obq const solver{.keep_zeros = keep};
            solution const serially = solver.solve(w, h, p);
            for (index_t const count : {1, 2, 3}) {
                thread_team many(count);
                solution const s = solver.solve(w, h, p, many);
                EXPECT_EQ(s.codes, serially.codes);
                EXPECT_EQ(s.scales, serially.scales);
                EXPECT_EQ(s.report.loss, serially.report.loss);
            }
        }
    }
}

} // namespace
