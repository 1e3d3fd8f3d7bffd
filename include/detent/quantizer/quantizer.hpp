// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <initializer_list>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "detent/grid/one_of.hpp"
#include "detent/matrix/quantized_matrix.hpp"
#include "detent/quantizer/evidence_needs.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "detent/scale/block_format.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// Inputs of layers stay as they are.
struct float_inputs {
    friend constexpr bool operator==(float_inputs, float_inputs) = default;
};

template <GridOrChoice G, Granularity P> class quantized_linear; // with `activations`

/// Whether a range can serve a grid, or all grids of a choice.
template <class R, class G> inline constexpr bool serves = RangeFor<R, G>;
template <class R, class... Gs> inline constexpr bool serves<R, one_of<Gs...>> = (RangeFor<R, Gs> && ...);

/// The range that a quantizer has where none is named.
template <GridOrChoice G> struct usual_range { using type = absmax_range; };
template <Grid G> struct usual_range<G> { using type = default_range<G>; };

/// The problem of rounding `w` (out, in) to a grid, or to one of several.
template <Grid G, Granularity P, RangeFor<G> R>
problem_of<G, P, R> make_problem(matrix_view w, G const& grid, P const& granularity, R const& range,
                                 scale_format format) {
    return problem_of<G, P, R>(grid, granularity, range, with_unit(grid, w, format));
}
template <Granularity P, class R, class... Gs>
open_format make_problem(matrix_view w, one_of<Gs...> const& choice, P const& granularity, R const& range,
                         scale_format format) {
    std::vector<std::unique_ptr<problem const>> formats;
    std::apply(
        [&](auto const&... grid) {
            (formats.push_back(
                 std::make_unique<problem_of<Gs, P, R>>(grid, granularity, range, with_unit(grid, w, format))),
             ...);
        },
        choice.grids);
    return open_format(std::move(formats));
}

/// A weight quantizer, composed of which values exist (grid), who shares a scale (granularity), which value each weight
/// gets (solver), how a scale is chosen (range), and how inputs are rounded (activations).
///
///     constexpr quantizer<int_grid<4>, per_group<128>, gptq<>> q{.solver = {.damping = 0.05}};
///     auto const w4 = q(weights, hessian::of(activations)); // weights (out, in), activations (token, in)
template <GridOrChoice G, Granularity P = per_channel, Solver S = rtn, class Range = typename usual_range<G>::type,
          class Activations = float_inputs>
struct quantizer {
    static_assert(serves<Range, G>, "this range cannot serve this grid: minmax_range needs a zero point as in "
                                    "int_grid<Bits, zero::free>, absmax_range, mse_range and truncated_range need "
                                    "one or a grid with numbers on both sides of zero");
    static_assert(!is_choice<G> || wraps<wrapping::search, S>,
                  "one_of is a choice of grids, which searched<...> makes: name it as the solver or around it");

    static constexpr bool rounds_inputs = !std::same_as<Activations, float_inputs>;
    /// What must be known about the inputs of the weights.
    using evidence = std::conditional_t<rounds_inputs, layer_inputs, typename S::evidence>;
    /// What a call answers: packed weights, with the way their inputs are rounded where they are.
    using result = std::conditional_t<rounds_inputs, quantized_linear<G, P>, quantized_matrix<G, P>>;

    G grid = {};
    P granularity = {};
    S solver = {};
    Range range = {};
    Activations activations = {};
    scale_format format = {}; ///< of scales; its unit, where it has one, is that of the weights

    /// The packed weights for `w` (out, in) and what is known about their inputs. Layers that read the same inputs
    /// share the factor that `known` keeps. @throws error when a weight is not finite, or the evidence does not fit `w`
    /// or is not enough.
    result operator()(matrix_view w, layer_inputs const& known, executor_ref executor = {}) const {
        return solved(w, [&](problem const& p) {
            if constexpr (rounds_inputs) {
                return solve_with(round_inputs(solver, activations.rounding()), w, known, p, executor);
            } else {
                return solve_with(solver, w, known, p, executor);
            }
        });
    }

    /// The packed weights for `w` where no more than the Hessian of the inputs is known.
    result operator()(matrix_view w, hessian const& known, executor_ref executor = {}) const {
        if constexpr (std::same_as<evidence, layer_inputs>) {
            return (*this)(w, layer_inputs(known), executor);
        } else {
            return solved(w, [&](problem const& p) { return solve_with(solver, w, known, p, executor); });
        }
    }

    /// The packed weights for `w` from a Hessian that was factored as the solver says, `factor(h,
    /// q.solver.factoring())`.
    result operator()(matrix_view w, hessian_factor const& known, executor_ref executor = {}) const
        requires(SecondOrderSolver<S> && !rounds_inputs) {
        return solved(w, [&](problem const& p) { return solver.solve(w, known, p, executor); });
    }

    /// The packed weights for `w` by a solver that needs nothing but the weights.
    result operator()(matrix_view w,
                      executor_ref executor = {}) const requires std::same_as<typename S::evidence, no_evidence> {
        return (*this)(w, layer_inputs{}, executor);
    }

    /// One answer for each of several weight matrices that read the same inputs.
    std::vector<result> quantize_all(std::initializer_list<matrix_view> weights, layer_inputs const& known,
                                     executor_ref executor = {}) const {
        std::vector<result> all;
        for (matrix_view const& w : weights) {
            all.push_back((*this)(w, known, executor));
        }
        return all;
    }
    std::vector<result> quantize_all(std::initializer_list<matrix_view> weights, hessian const& known,
                                     executor_ref executor = {}) const {
        return quantize_all(weights, layer_inputs(known), executor);
    }

    /// What a quantizer must be shown of a model for all that.
    evidence_needs needs() const {
        bool const fixed = rounds_fixed();
        evidence_needs needs{.float_inputs = wraps<wrapping::search, S> || fixed,
                             .all_inputs = fixed || passes_inputs(solver)};
        needs.float_stream = corrects<S> && !needs.float_inputs;
        if constexpr (rounds_inputs) {
            if (!fixed && !wraps<wrapping::map, S>) {
                needs.rounded = activations.rounding().dynamic();
            }
        }
        return needs;
    }

private:
    bool rounds_fixed() const {
        if constexpr (rounds_inputs) {
            return activations.fixed;
        } else {
            return false;
        }
    }

    /// What `solve` makes of the problem of rounding `w`.
    template <class Solve> result solved(matrix_view w, Solve const& solve) const {
        solution s = solve(make_problem(w, grid, granularity, range, format));
        s.report.clamped_scales = clamped_scales(w, s);
        quantized_matrix<G, P> weights(grid, granularity, s);
        if constexpr (rounds_inputs) {
            return {std::move(weights), std::move(s.input.value())};
        } else {
            return weights;
        }
    }
};

/// A quantizer of weights to a `block_format`, such as `quantizer_of<mxfp4>(gptq<>{})`.
template <class Format, Solver S = rtn> constexpr auto quantizer_of(S solver = {}) {
    return quantizer<typename Format::grid, typename Format::granularity, S>{.solver = std::move(solver),
                                                                             .format = Format::format};
}

} // namespace detent::inline DETENT_ABI
