// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Either ranges are searched or clips learned.
// expect: clipped and searched both choose the scales: one of them is enough

#include "detent/solver/clipped.hpp"
#include "detent/solver/searched.hpp"

#ifdef SLIP
using solver = detent::searched<detent::clipped<>>;
#else
using solver = detent::searched<>;
#endif

solver const made{};
