// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <span>
#include <utility>

#include "detent/evidence/rounded_inputs.hpp"
#include "detent/matrix/input_rounding.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"
#include "detent/solver/transformed.hpp"

namespace detent::inline DETENT_ABI {

/// Solves for a layer whose inputs are rounded too, and tells how in the solution. A static range is chosen from the
/// inputs, which must have been kept; the solver then knows the rounded inputs beside what they were, and `searched`
/// chooses the ranges of both in turns. Where every token has its own range, the evidence says what the solver knows.
template <Solver Inner = rtn> struct rounding_inputs {
    using evidence = layer_inputs;

    Inner inner = {};
    input_rounding how = {};

    /// Codes and scales for `w` (out, in). @throws error as `inner`, and when inputs that are needed have not been
    /// kept.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const {
        if (!how.fixed) {
            solution s = solve_with(inner, w, known, p, executor);
            s.input = how.dynamic();
            return s;
        }
        expect_features(known.features(), w);
        if (known.kept().rows() == 0) {
            raise(error("inputs", "that share a range must all be known, and kept"));
        }
        std::span<any_grid const> const grids(how.grids.data(), how.grids.size());
        if constexpr (requires { inner.solve(w, known, p, grids, executor); }) {
            if (how.width == 0) {
                return inner.solve(w, known, p, grids, executor);
            }
        }
        activation_quantizer input = how.fit(known.kept());
        layer_inputs const seen = rounded_inputs(known.kept(), input, executor);
        solution s = solve_with(inner, w, seen, p, executor);
        s.input = std::move(input);
        return s;
    }

    friend bool operator==(rounding_inputs const&, rounding_inputs const&) = default;
};

/// `solver` for rounded inputs. Inputs are rounded after they have been mapped, so the maps of `transformed` stay
/// outside.
template <Solver S> auto round_inputs(S const& solver, input_rounding how) {
    return rounding_inputs<S>{solver, std::move(how)};
}
template <Transform T, Solver Inner> auto round_inputs(transformed<T, Inner> const& solver, input_rounding how) {
    auto inner = round_inputs(solver.inner, std::move(how));
    return transformed<T, decltype(inner)>{solver.transform, std::move(inner)};
}

} // namespace detent::inline DETENT_ABI
