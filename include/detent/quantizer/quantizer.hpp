// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>

#include "detent/matrix/quantized_matrix.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"

namespace detent::inline DETENT_ABI {

/// A weight quantizer, composed of which values exist (grid), who shares a scale (granularity), which value each weight
/// gets (solver) and how a scale is chosen (range).
///
///     constexpr quantizer<int_grid<4>, per_group<128>, gptq<>> q{.solver = {.damping = 0.05}};
///     auto const w4 = q(weights, hessian::of(activations)); // weights (out, in), activations (token, in)
template <Grid G, Granularity P = per_channel, Solver S = rtn, class Range = default_range<G>> struct quantizer {
    static_assert(RangeFor<Range, G>, "this range cannot serve this grid: minmax_range needs a zero point as in "
                                      "int_grid<Bits, zero::free>, absmax_range, mse_range and truncated_range need "
                                      "one or a grid with numbers on both sides of zero");
    using evidence = typename S::evidence;

    G grid = {};
    P granularity = {};
    S solver = {};
    Range range = {};
    scale_format format = {}; ///< of scales; its unit, where it has one, is that of the weights

    /// The packed matrix for weights `w` (out, in) and what the solver must know about their inputs.
    /// @throws error when a weight is not finite or the evidence does not fit `w`.
    quantized_matrix<G, P> operator()(matrix_view w, evidence const& known, executor_ref executor = {}) const {
        problem_of const p{grid, granularity, range, with_unit(grid, w, format)};
        return {grid, granularity, solver.solve(w, known, p, executor)};
    }

    /// The same for a solver that needs nothing but the weights.
    quantized_matrix<G, P> operator()(matrix_view w, executor_ref executor = {}) const
        requires std::same_as<evidence, no_evidence>
    {
        return (*this)(w, no_evidence{}, executor);
    }
};

} // namespace detent::inline DETENT_ABI
