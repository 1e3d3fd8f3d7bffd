// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace detent::test {

/// A second-order solver that knows too little says why: in an error, or if it may round to nearest, in its report.
template <class S> void expect_fallback(S solver, hessian const& h, char const* complaint, char const* why) {
    matrix const w = random_matrix(8, 40, 1);
    problem_of const p{int_grid<4>{}, per_group<16>{}, minmax_range{}};
    EXPECT_EQ(failure_message([&] { solver.solve(w, h, p); }), complaint);
    solver.or_rtn = true;
    solution const s = solver.solve(w, h, p);
    EXPECT_EQ(s.codes, rtn{}.solve(w, {}, p).codes);
    EXPECT_EQ(s.report.fallback, why);
}

template <class S> void expect_fallback_where_nothing_was_seen() {
    expect_fallback(S{}, hessian(40),
                    "hessian: has seen no tokens (only with or_rtn are weights then rounded to nearest)",
                    "no input was ever seen");
}

template <class S> void expect_fallback_where_no_factor_exists() {
    basic_matrix<double> indefinite = basic_matrix<double>::Constant(40, 40, 1e6);
    indefinite.diagonal().setOnes();
    expect_fallback(
        S{}, hessian(indefinite, 2),
        "hessian: could not be factored even with a damping of 1 (only with or_rtn are weights then rounded "
        "to nearest)",
        "the Hessian could not be factored");
}

/// Damping that is negative or not finite is an error, not some other damping.
template <class S> void expect_damping_checked() {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    hessian const h = hessian::of(correlated_inputs(100, 40, 1));
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    auto const message = [&](double damping) {
        return failure_message([&] { S{.damping = damping}.solve(random_matrix(8, 40, 1), h, p); });
    };
    EXPECT_EQ(message(-5), "hessian: its damping is -5.000000, not finite and 0 or more");
    EXPECT_EQ(message(infinity), "hessian: its damping is inf, not finite and 0 or more");
    EXPECT_EQ(message(std::numeric_limits<double>::quiet_NaN()).substr(0, 24), "hessian: its damping is ");
    EXPECT_EQ(message(0), "");
}

/// Inputs (token, in) of which numbers 3 and 39 are always zero.
inline matrix inputs_with_dead_ones() {
    matrix x = correlated_inputs(150, 40, 1);
    x.col(3).setZero();
    x.col(39).setZero();
    return x;
}

/// What a solver, or the one that it wraps, rounds in place of `w`.
template <class S> matrix corrected_by(S const& solver, matrix const& w, layer_inputs const& known) {
    if constexpr (CorrectingSolver<S>) {
        return solver.correct(w, known);
    } else if constexpr (requires { solver.inner; }) {
        return corrected_by(solver.inner, w, known);
    } else {
        return w;
    }
}

/// The weights of inputs that were always zero are rounded to nearest and make up for nothing: the codes of others are
/// those for inputs without them, where scales do not depend on them.
template <class S> void expect_dead_inputs_rounded_to_nearest(S const& solver) {
    matrix const x = inputs_with_dead_ones();
    matrix w = random_matrix(8, 40, 1);
    w(0, 3) = 0;
    layer_inputs known(40);
    if constexpr (std::same_as<typename S::evidence, layer_inputs>) {
        known.add(0.9F * x, x);
    } else {
        known.add(x);
    }
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    solution const s = solve_with(solver, w, known, p);
    EXPECT_EQ(s.report.dead_columns, 2);
    // Ranges are those of all columns that are left, the weak ones not among them.
    std::vector<std::int32_t> others;
    for (std::int32_t j = 0; j < 40; ++j) {
        if (s.weak.find(j) < 0) {
            others.push_back(j);
        }
    }
    matrix const corrected = corrected_by(solver, w, known);
    EXPECT_EQ(corrected.col(3), w.col(3));
    EXPECT_EQ(corrected.col(39), w.col(39));
    solution const nearest = rtn{}.solve(take_columns(corrected, others), {}, p);
    index_t not_zero = 0;
    for (std::int32_t const dead : {3, 39}) {
        auto const place = std::ranges::find(others, dead) - others.begin();
        for (index_t row = 0; row < 8; ++row) {
            EXPECT_EQ(s.code_at(row, dead), nearest.code_at(row, place)) << "row " << row << ", input " << dead;
            not_zero += decode(nearest)(row, place) != 0 ? 1 : 0;
        }
    }
    EXPECT_GT(not_zero, 8);
}

} // namespace detent::test
