// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A solver that says how the Hessian is factored takes the factor too, so that weak columns can be taken out of it.
// expect: owq hands it a factor: it needs solve\(matrix_view w, hessian_factor

#include "detent/solver/owq.hpp"

struct own_solver {
    using evidence = detent::hessian;

    detent::factor_options factoring() const { return {}; }
    detent::solution solve(detent::matrix_view w, detent::hessian const& h, detent::problem const& p,
                           detent::executor_ref executor = {}) const {
        return solve(w, detent::factor(h, factoring(), executor), p, executor);
    }
#ifdef SLIP
private:
#endif
    detent::solution solve(detent::matrix_view w, detent::hessian_factor const& f, detent::problem const& p,
                           detent::executor_ref executor = {}) const {
        return detent::gptq<>{}.solve(w, f, p, executor);
    }

    friend bool operator==(own_solver, own_solver) = default;
};

detent::owq<own_solver> const solver{};
