// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Clips are those of the mapped matrix, so the transform is outside.
// expect: clips are those of the mapped matrix: write transformed<T, clipped<Inner>>

#include "detent/solver/clipped.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/smooth.hpp"

#ifdef SLIP
using solver = detent::clipped<detent::transformed<detent::smooth<>>>;
#else
using solver = detent::transformed<detent::smooth<>, detent::clipped<>>;
#endif

solver const made{};
