// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The same with another wrapper between the two.
// expect: weak columns are taken out once: owq in owq

#include "detent/solver/clipped.hpp"
#include "detent/solver/owq.hpp"

#ifdef SLIP
using solver = detent::owq<detent::clipped<detent::owq<>>>;
#else
using solver = detent::owq<detent::clipped<detent::gptq<>>>;
#endif

solver const made{};
