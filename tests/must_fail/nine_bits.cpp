// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A code has 8 bits at most.
// expect: constraint failure|constraints not satisfied

#include "detent/grid/int_grid.hpp"

#ifdef SLIP
constexpr int bits = 9;
#else
constexpr int bits = 8;
#endif

float highest() { return detent::int_grid<bits>::highest(); }
