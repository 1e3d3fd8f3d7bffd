// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A range must serve every grid of a choice.
// expect: this range cannot serve this grid: minmax_range needs a zero point

#include "detent/grid/fp_grid.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/searched.hpp"

#ifdef SLIP
using range = detent::minmax_range;
#else
using range = detent::mse_range;
#endif

using grids = detent::one_of<detent::e2m1, detent::fp_grid<3, 0>>;
detent::quantizer<grids, detent::per_channel, detent::searched<>, range> const q{};
