// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The scales are chosen once: clips are learned for the codes that another solver chooses.
// expect: clipped and searched both choose the scales: one of them is enough

#include "detent/solver/clipped.hpp"
#include "detent/solver/gptq.hpp"

#ifdef SLIP
using solver = detent::clipped<detent::clipped<>>;
#else
using solver = detent::clipped<detent::gptq<>>;
#endif

solver const made{};
