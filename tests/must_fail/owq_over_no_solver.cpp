// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The columns that are not weak need a solver.
// expect: constraint failure|constraints not satisfied

#include "detent/solver/owq.hpp"

#ifdef SLIP
using inner = detent::hessian;
#else
using inner = detent::gptq<>;
#endif

detent::owq<inner> const solver{};
