// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <limits>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "solver/correlated_inputs.hpp"

namespace detent::test {

/// A second-order solver rounds to nearest where it knows too little, and says why.
template <class S> void expect_fallback(S const& solver, hessian const& h, char const* why) {
    matrix const w = random_matrix(8, 40, 1);
    problem_of const p{int_grid<4>{}, per_group<16>{}, minmax_range{}};
    solution const s = solver.solve(w, h, p);
    EXPECT_EQ(s.codes, rtn{}.solve(w, {}, p).codes);
    EXPECT_EQ(s.report.fallback, why);
}

template <class S> void expect_fallback_where_nothing_was_seen() {
    expect_fallback(S{}, hessian(40), "no input was ever seen");
}

template <class S> void expect_fallback_where_no_factor_exists() {
    expect_fallback(S{.damping = std::numeric_limits<double>::infinity()},
                    hessian::of(correlated_inputs(100, 40, 1)), "the Hessian could not be factored");
}

} // namespace detent::test
