// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A min-max range needs a zero point, and the message says so.
// expect: this range cannot serve this grid: minmax_range needs a zero point

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/quantizer.hpp"

#ifdef SLIP
using grid = detent::e2m1;
#else
using grid = detent::int_grid<4>;
#endif

detent::quantizer<grid, detent::per_channel, detent::rtn, detent::minmax_range> const q{};
