// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/scale/range.hpp"

namespace detent::inline DETENT_ABI {

/// The smallest and the largest weight, and 0, set scale and zero point (asymmetric quantization).
struct minmax_range {
    /// The scale and zero point of `tile`, stored as `format`.
    template <AffineGrid G> tile_scale fit(G const& grid, matrix_view tile, scale_format format) const {
        return lay_affine(grid, interval::of(grid, tile), format);
    }

    friend constexpr bool operator==(minmax_range, minmax_range) = default;
};

} // namespace detent::inline DETENT_ABI
