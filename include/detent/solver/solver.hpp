// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <type_traits>

#include "detent/evidence/layer_inputs.hpp"
#include "detent/solver/problem.hpp"

namespace detent::inline DETENT_ABI {

/// The evidence of a solver that needs nothing but the weights.
struct no_evidence {};

/// What a solver can ask to be told about a layer's inputs. Not a `hessian_factor`: that is for the second `solve` of a
/// `SecondOrderSolver`.
template <class E>
concept LayerEvidence = std::same_as<E, no_evidence> || std::same_as<E, hessian> || std::same_as<E, layer_inputs>;

/// A solver chooses a code for every weight. Its type says what it must know about the layer's inputs: `no_evidence`,
/// `hessian` or `layer_inputs`.
template <class S>
concept Solver = std::regular<S> && LayerEvidence<typename S::evidence> &&
    requires(S const solver, matrix_view w, typename S::evidence const& known, problem const& p,
             executor_ref executor) {
    { solver.solve(w, known, p, executor) } -> std::same_as<solution>;
};

/// A solver that works from the Hessian factored as it says: damped so much, inputs in their natural order or in
/// descending order of activation. Layers that read the same inputs can then share the factor, and `owq` can solve for
/// the columns that are left with a part of it; the order of a factor may be any order of the columns.
template <class S>
concept SecondOrderSolver = Solver<S> &&
    requires(S const solver, matrix_view w, hessian_factor const& factor, problem const& p, executor_ref executor) {
    { solver.factoring() } -> std::same_as<factor_options>;
    { solver.solve(w, factor, p, executor) } -> std::same_as<solution>;
};

/// A solver that says how it wants the Hessian factored, and so should be a `SecondOrderSolver`.
template <class S>
concept FactorsHessian = requires(S const solver) {
    solver.factoring();
};

/// A solver that first moves the weights towards the float model's output, and then rounds them with a second-order
/// solver.
template <class S>
concept CorrectingSolver = Solver<S> &&
    requires(S const solver, matrix_view w, layer_inputs const& known, executor_ref executor) {
    { solver.correct(w, known, executor) } -> std::same_as<matrix>;
    requires SecondOrderSolver<decltype(solver.after_correction())>;
};

/// What a solver does besides choosing codes, for those that wrap others.
enum class wrapping { weak_columns, clip, search, map };

/// Whether a solver, or any that it wraps, does that.
template <wrapping What, class S>
inline constexpr bool wraps = [] {
    bool found = false;
    if constexpr (requires { S::wraps; }) {
        found = S::wraps == What;
    }
    if constexpr (requires(S s) { s.inner; }) {
        found = found || wraps<What, decltype(S::inner)>;
    }
    return found;
}();

/// How a solver, or the one that it wraps, factors the Hessian; the usual way where it does not.
template <Solver S> factor_options factoring_of(S const& solver) {
    if constexpr (FactorsHessian<S>) {
        return solver.factoring();
    } else if constexpr (CorrectingSolver<S>) {
        return solver.after_correction().factoring();
    } else if constexpr (requires { solver.inner; }) {
        return factoring_of(solver.inner);
    } else {
        return {};
    }
}

/// Whether a solver, or the one that it wraps, corrects weights towards the float model's output.
template <Solver S>
inline constexpr bool corrects = [] {
    if constexpr (requires(S s) { s.inner; }) {
        return corrects<decltype(S::inner)>;
    } else {
        return CorrectingSolver<S>;
    }
}();

/// Whether a solver, or one that it wraps, must see all inputs and not only their Hessian.
template <Solver S> bool passes_inputs(S const& solver) {
    if constexpr (requires { solver.passes_inputs(); }) {
        return solver.passes_inputs();
    } else if constexpr (requires { solver.inner; }) {
        return passes_inputs(solver.inner);
    } else {
        return false;
    }
}

/// What a solver around `Inner` has to know: as much, but not less than a Hessian.
template <Solver Inner>
using evidence_around = std::conditional_t<std::same_as<typename Inner::evidence, layer_inputs>, layer_inputs, hessian>;

/// `solver.solve` with what of the evidence it asks for, given `layer_inputs`, a `hessian` or a `hessian_factor`;
/// second-order solvers share the factor that `layer_inputs` keep.
template <Solver S, class Known>
solution solve_with(S const& solver, matrix_view w, Known const& known, problem const& p, executor_ref executor = {}) {
    if constexpr (std::same_as<typename S::evidence, no_evidence>) {
        return solver.solve(w, no_evidence{}, p, executor);
    } else if constexpr (SecondOrderSolver<S> && std::same_as<Known, layer_inputs>) {
        expect_features(known.features(), w);
        problem::expect_weights(w); // before the work
        return solver.solve(w, known.factor(solver.factoring(), executor), p, executor);
    } else {
        return solver.solve(w, known, p, executor);
    }
}

} // namespace detent::inline DETENT_ABI
