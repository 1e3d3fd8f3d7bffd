// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A solver says by its evidence what it knows of inputs; a factor of the Hessian is what `factoring()` asks for.
// expect: LayerEvidence

#include "detent/solver/owq.hpp"

struct own_solver {
#ifdef SLIP
    using evidence = detent::hessian_factor;
#else
    using evidence = detent::hessian;
#endif

    detent::solution solve(detent::matrix_view w, evidence const&, detent::problem const& p,
                           detent::executor_ref executor = {}) const {
        return detent::rtn{}.solve(w, {}, p, executor);
    }

    friend bool operator==(own_solver, own_solver) = default;
};

detent::owq<own_solver> const solver{};
