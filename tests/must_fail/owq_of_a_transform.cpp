// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Weak columns are those of the mapped matrix, so the transform is outside.
// expect: weak columns are taken out of the mapped matrix: write transformed<T, owq<Inner>>

#include "detent/solver/owq.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"

#ifdef SLIP
using solver = detent::owq<detent::transformed<detent::hadamard<16>, detent::gptq<>>>;
#else
using solver = detent::transformed<detent::hadamard<16>, detent::owq<detent::gptq<>>>;
#endif

solver const made{};
