// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Either clips are learned or ranges searched.
// expect: clipped and searched both choose the scales: one of them is enough

#include "detent/solver/clipped.hpp"
#include "detent/solver/searched.hpp"

#ifdef SLIP
using solver = detent::clipped<detent::searched<>>;
#else
using solver = detent::clipped<>;
#endif

solver const made{};
