// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A min-max range needs a zero point, also for activations, and the message says so.
// expect: this range cannot serve this grid of activations: minmax_range needs a zero point

#include "detent/granularity/granularity.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/activations.hpp"
#include "detent/scale/minmax.hpp"

#ifdef SLIP
using grid = detent::e2m1;
#else
using grid = detent::int_grid<4>;
#endif

detent::activations<grid, detent::per_token, detent::minmax_range> const a{};
