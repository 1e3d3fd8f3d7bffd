// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/grid/grid.hpp"
#include "detent/scale/scale_format.hpp"

namespace detent::inline DETENT_ABI {

/// What the weights of a tile share: a code stands for `(decode(code) - zero) * scale`. The zero point is an integer
/// within the codes, and 0 for grids without one.
struct tile_scale {
    float scale = 1;
    float zero = 0;

    friend constexpr bool operator==(tile_scale, tile_scale) = default;
};

/// The code of weight `x`. The division is not a product with 1/scale, which would round ties elsewhere.
template <Grid G> code encode(G const& grid, float x, tile_scale s) {
    if constexpr (AffineGrid<G>) {
        return grid.encode(x / s.scale, s.zero);
    } else {
        return grid.encode(x / s.scale);
    }
}

/// The weight that code `c` stands for.
template <Grid G> float decode(G const& grid, code c, tile_scale s) { return (grid.decode(c) - s.zero) * s.scale; }

} // namespace detent::inline DETENT_ABI
