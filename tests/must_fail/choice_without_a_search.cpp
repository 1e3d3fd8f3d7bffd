// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A choice among grids is made by a search.
// expect: one_of is a choice of grids, which searched<...> makes: name it as the solver or around it

#include "detent/grid/fp_grid.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/searched.hpp"

#ifdef SLIP
using solver = detent::gptq<>;
#else
using solver = detent::searched<detent::gptq<>>;
#endif

using grids = detent::one_of<detent::e2m1, detent::fp_grid<3, 0>>;
detent::quantizer<grids, detent::per_channel, solver> const q{};
