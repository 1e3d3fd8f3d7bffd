// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include "detent/core/eigen.hpp"
#include "detent/scale/tile_scale.hpp"

namespace detent::test {

/// A matrix of one row.
inline matrix row_of(std::initializer_list<float> weights) { return matrix{weights}; }

/// sum |decode(encode(x)) - x|^norm in double.
template <Grid G> double error_of(G const& grid, matrix const& tile, tile_scale s, double norm) {
    double error = 0;
    for (float const x : tile.reshaped()) {
        error += std::pow(std::abs(double{decode(grid, encode(grid, x, s), s)} - x), norm);
    }
    return error;
}

} // namespace detent::test
