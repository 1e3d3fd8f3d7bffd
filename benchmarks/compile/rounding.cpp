// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Rounding to nearest from the headers that it needs.
#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/rtn.hpp"

using namespace detent;

double bits_of_rounded(matrix const& w) {
    return quantizer<int_grid<4>, per_group<128>>{}(w).bits_per_weight();
}
