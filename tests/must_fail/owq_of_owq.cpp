// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Weak columns are taken out once.
// expect: weak columns are taken out once: owq in owq

#include "detent/solver/owq.hpp"

#ifdef SLIP
using solver = detent::owq<detent::owq<>>;
#else
using solver = detent::owq<>;
#endif

solver const made{};
