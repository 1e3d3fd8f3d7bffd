// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <utility>

#include "detent/solver/rtn.hpp"
#include "detent/solver/solver.hpp"

namespace detent::inline DETENT_ABI {

/// Any solver, known only at run time; copies share it. What wraps it is compiled once for all.
class any_solver {
public:
    using evidence = layer_inputs;

    any_solver() : any_solver(rtn{}) {}
    template <class S>
    requires(!std::same_as<S, any_solver> && Solver<S>) // in this order: else the second asks for itself
        explicit any_solver(S solver)
        : solver_(std::make_shared<holder<S>>(std::move(solver))) {}

    /// As that solver, with what of the evidence it asks for; second-order solvers share the factor `known` keeps.
    solution solve(matrix_view w, layer_inputs const& known, problem const& p, executor_ref executor = {}) const {
        return solver_->solve(w, known, p, executor);
    }

    /// Whether both are copies of one.
    friend bool operator==(any_solver const&, any_solver const&) = default;

private:
    struct base {
        virtual ~base() = default;
        virtual solution solve(matrix_view w, layer_inputs const& known, problem const& p,
                               executor_ref executor) const = 0;
    };
    template <Solver S> struct holder final : base {
        explicit holder(S s) : solver(std::move(s)) {}
        solution solve(matrix_view w, layer_inputs const& known, problem const& p,
                       executor_ref executor) const override {
            return solve_with(solver, w, known, p, executor);
        }
        S solver;
    };

    std::shared_ptr<base const> solver_;
};

} // namespace detent::inline DETENT_ABI
