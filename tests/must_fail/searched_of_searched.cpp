// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The scales are chosen once: ranges are searched for the codes that another solver chooses.
// expect: clipped and searched both choose the scales: one of them is enough

#include "detent/solver/gptq.hpp"
#include "detent/solver/searched.hpp"

#ifdef SLIP
using solver = detent::searched<detent::searched<>>;
#else
using solver = detent::searched<detent::gptq<>>;
#endif

solver const made{};
