// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "solver/correlated_inputs.hpp"

namespace detent::test {

/// Two groups of 16, of which the second has weights 100 times larger; inputs 0 and 1, of the first, are so large that
/// their columns are weak.
struct two_groups {
    matrix w = random_matrix(24, 32, 3);
    matrix x = correlated_inputs(300, 32, 1);
    layer_inputs known;
    given_range given;

    two_groups() {
        w.rightCols(16) *= 100;
        x.leftCols(2) *= 1e4F;
        known = layer_inputs::of(x);
        solution const s = rtn{}.solve(w, {}, problem_of{int_grid<3>{}, per_group<16>{}, minmax_range{}});
        given = {.scales = s.scales, .tile = s.tile};
    }

    double relative_error(packed_matrix const& q) const {
        return std::sqrt(known.hessian().quadratic(w - dequantize(q)) / known.hessian().quadratic(w));
    }
};

/// The weight of a column as it is when rounded to nearest with the scale of its own group.
inline float nearest(two_groups const& l, index_t row, index_t col) {
    tile_scale const s = l.given.scales.at(row, col / 16);
    return decode(int_grid<3>{}, encode(int_grid<3>{}, l.w(row, col), s), s);
}

} // namespace detent::test
