// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/half.hpp"
#include "detent/grid/grid.hpp"

namespace detent::inline DETENT_ABI {

/// `scale` as `format` stores it: scales are rounded before a solver uses them, so that the codes match the scale they
/// will be decoded with. It stays within the format's normal numbers: one that became zero or infinite would lose its
/// tile.
constexpr float store(float_format format, float scale) {
    switch (format) {
    case float_format::f16:
        return static_cast<float>(half{std::clamp(scale, 0x1p-14F, 65504.0F)});
    case float_format::bf16:
        return static_cast<float>(bfloat16{std::clamp(scale, 0x1p-126F, 0x1.FEp127F)});
    case float_format::f32:
        break;
    }
    return std::clamp(scale, 0x1p-126F, 0x1.FFFFFEp127F);
}

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
