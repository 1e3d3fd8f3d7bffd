// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Ranges are those of the mapped matrix, so the transform is outside.
// expect: ranges are those of the mapped matrix: write transformed<T, searched<Inner>>

#include "detent/solver/searched.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/smooth.hpp"

#ifdef SLIP
using solver = detent::searched<detent::transformed<detent::smooth<>>>;
#else
using solver = detent::transformed<detent::smooth<>, detent::searched<>>;
#endif

solver const made{};
