// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <concepts>
#include <cstdint>
#include <vector>

#include <Eigen/Dense>
#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/any_solver.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/searched.hpp"
#include "detent/solver/solver.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "detent/transform/smooth.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/own_solver.hpp"

namespace {

using namespace detent;
using test::coordinate_descent;
using test::correlated_inputs;
using test::descent_on_hessian;
using test::error_diffusion;
using test::random_matrix;

static_assert(SecondOrderSolver<coordinate_descent> && SecondOrderSolver<clipped<coordinate_descent>>);
static_assert(SecondOrderSolver<gptq<>> && SecondOrderSolver<clipped<obq>> && !SecondOrderSolver<rtn>);
static_assert(Solver<descent_on_hessian> && !SecondOrderSolver<descent_on_hessian>);
static_assert(Solver<error_diffusion> && !SecondOrderSolver<error_diffusion>);
static_assert(CorrectingSolver<gptaq<>> && CorrectingSolver<clipped<qronos<>>> && !CorrectingSolver<gptq<>>);
static_assert(Solver<owq<coordinate_descent>> && Solver<searched<error_diffusion>> && Solver<any_solver>);
static_assert(!Solver<hessian> && !Solver<int>);

static_assert(std::same_as<owq<error_diffusion>::evidence, hessian>);
static_assert(std::same_as<owq<coordinate_descent>::evidence, hessian>);
static_assert(std::same_as<clipped<gptaq<>>::evidence, layer_inputs>);
static_assert(std::same_as<owq<any_solver>::evidence, layer_inputs>);

static_assert(wraps<wrapping::weak_columns, clipped<owq<>>> && wraps<wrapping::clip, clipped<owq<>>>);
static_assert(wraps<wrapping::search, transformed<smooth<>, searched<owq<>>>>);
static_assert(wraps<wrapping::map, transformed<smooth<>>> && !wraps<wrapping::map, owq<clipped<>>>);
static_assert(!wraps<wrapping::clip, coordinate_descent> && !wraps<wrapping::search, any_solver>);

TEST(solver, wrappers_factor_as_what_they_wrap_does) {
    gptq<> const inner{.damping = 0.3, .activation_order = true};
    factor_options const expected{0.3, true};
    EXPECT_EQ(factoring_of(inner), expected);
    EXPECT_EQ(factoring_of(clipped<gptq<>>{inner}), expected);
    EXPECT_EQ(factoring_of(owq<clipped<gptq<>>>{.inner = {inner}}), expected);
    EXPECT_EQ(factoring_of(qronos<>{.rounding = inner}), expected);
    EXPECT_EQ(factoring_of(searched<qronos<>>{.inner = {.rounding = inner}}), expected);
    EXPECT_EQ(factoring_of(rtn{}), factor_options{});
}

/// A layer and the error of its output, (1/n) |W x - Q x|^2 over its inputs.
struct correlated_layer {
    matrix w = random_matrix(24, 64, 3);
    layer_inputs known = layer_inputs::of(correlated_inputs(300, 64, 1));

    template <class S> double error(S const& solver) const {
        quantizer<int_grid<3>, per_group<16>, S> const q{.solver = solver};
        return known.hessian().quadratic(w - dequantize(q(w, known).packed()));
    }
};

/// Whatever wraps them, `S` loses less than rounding to nearest does in its place, and the same bits come out for any
/// executor.
template <class S> void expect_better_than_rtn_everywhere() {
    correlated_layer const l;
    EXPECT_LT(l.error(S{}), 0.9 * l.error(rtn{}));
    EXPECT_LT(l.error(owq<S>{.columns = 4}), 0.9 * l.error(owq<rtn>{.columns = 4}));
    EXPECT_LT(l.error(owq<S>{.columns = 4}), l.error(S{}));
    EXPECT_LT(l.error(clipped<S>{}), l.error(clipped<rtn>{}));
    EXPECT_LE(l.error(clipped<S>{}), 1.01 * l.error(S{})); // equal for the damped Hessian
    EXPECT_LT(l.error(searched<S>{}), 0.95 * l.error(searched<rtn>{}));
    EXPECT_LT(l.error(transformed<hadamard<16>, S>{}), 0.9 * l.error(transformed<hadamard<16>>{}));
    EXPECT_LT(l.error(transformed<smooth<>, owq<clipped<S>>>{.inner = {.columns = 4}}),
              0.9 * l.error(transformed<smooth<>, owq<clipped<>>>{.inner = {.columns = 4}}));
    thread_team two(2);
    quantizer<int_grid<3>, per_group<16>, owq<clipped<S>>> const q{.solver = {.columns = 4}};
    EXPECT_EQ(q(l.w, l.known, two).packed(), q(l.w, l.known).packed());
}

TEST(solver, a_users_second_order_solver_works_everywhere) { expect_better_than_rtn_everywhere<coordinate_descent>(); }
TEST(solver, a_users_solver_that_wants_the_hessian_works_everywhere) {
    expect_better_than_rtn_everywhere<descent_on_hessian>();
}

TEST(solver, a_users_solver_that_knows_only_weights_works_everywhere) {
    correlated_layer const l;
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    // Under owq it sees the columns that are left, in their order, and the others make up for its errors.
    solution const s = owq<error_diffusion>{.columns = 3}.solve(l.w, l.known, p);
    std::vector<std::int32_t> others;
    for (std::int32_t j = 0; j < 64; ++j) {
        if (s.weak.find(j) < 0) {
            others.push_back(j);
        }
    }
    ASSERT_EQ(others.size(), 61U);
    solution const alone = error_diffusion{}.solve(take_columns(l.w, others), {}, p);
    for (index_t row = 0; row < 24; ++row) {
        for (index_t k = 0; k < 61; ++k) {
            ASSERT_EQ(s.code_at(row, others[static_cast<std::size_t>(k)]), alone.code_at(row, k));
        }
    }
    EXPECT_LT(l.error(owq<error_diffusion>{.columns = 3}),
              l.error(owq<error_diffusion>{.columns = 3, .compensate = false}));
    EXPECT_LE(l.error(clipped<error_diffusion>{}), (1 + 1e-5) * l.error(error_diffusion{}));
    EXPECT_GT(l.error(searched<error_diffusion>{}), 0);
    EXPECT_GT(l.error(transformed<hadamard<16>, error_diffusion>{}), 0);
}

TEST(solver, a_factor_stands_for_what_weak_columns_leave) {
    // coordinate_descent from the leading part of the factor is the one on H_qq - H_qw H_ww^-1 H_wq.
    correlated_layer const l;
    hessian const& h = l.known;
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    solution const s = owq<coordinate_descent>{.columns = 3}.solve(l.w, h, p);
    std::vector<std::int32_t> others;
    std::vector<std::int32_t> weak;
    for (std::int32_t j = 0; j < 64; ++j) {
        (s.weak.find(j) < 0 ? others : weak).push_back(j);
    }
    Eigen::MatrixXd damped = test::dense(h);
    damped.diagonal().array() += 0.01 * damped.diagonal().mean();
    Eigen::MatrixXd const left =
        damped(others, others) - damped(others, weak) * damped(weak, weak).inverse() * damped(weak, others);
    solution const expected = test::descend(take_columns(l.w, others), left, 4, p, {});
    for (index_t row = 0; row < 24; ++row) {
        for (index_t k = 0; k < 61; ++k) {
            ASSERT_EQ(s.code_at(row, others[static_cast<std::size_t>(k)]), expected.code_at(row, k));
        }
    }
    EXPECT_NEAR(s.report.loss, expected.report.loss, 1e-6 * expected.report.loss);
}

TEST(solver, is_told_only_what_it_asks_for) {
    correlated_layer const l;
    problem_of const p{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    auto const expect_same = [&](auto const& solver) {
        auto const expected = solve_with(solver, l.w, l.known, p).codes;
        EXPECT_EQ(any_solver(solver).solve(l.w, l.known, p).codes, expected);
        if constexpr (!std::same_as<typename std::remove_cvref_t<decltype(solver)>::evidence, layer_inputs>) {
            EXPECT_EQ(solve_with(solver, l.w, l.known.hessian(), p).codes, expected);
        }
    };
    expect_same(rtn{});
    expect_same(error_diffusion{});
    expect_same(descent_on_hessian{});
    expect_same(coordinate_descent{});
    expect_same(gptq<>{.activation_order = true});
    expect_same(owq<>{.columns = 2});
    expect_same(searched<>{});
    EXPECT_EQ(any_solver{}.solve(l.w, l.known, p).codes, rtn{}.solve(l.w, {}, p).codes);
}

TEST(any_solver, copies_are_equal_and_others_are_not) {
    any_solver const a(gptq<>{});
    any_solver const b = a;
    EXPECT_EQ(a, b);
    EXPECT_NE(a, any_solver(gptq<>{}));
}

} // namespace
