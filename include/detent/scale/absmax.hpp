// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/scale/range.hpp"

namespace detent::inline DETENT_ABI {

/// The largest absolute weight sets the scale (symmetric quantization).
struct absmax_range {
    /// The scale of `tile`, stored as `format`.
    template <SymmetricallyLaid G> tile_scale fit(G const& grid, matrix_view tile, scale_format format) const {
        return lay_symmetric(grid, interval::of(grid, tile).symmetric(), format);
    }

    friend constexpr bool operator==(absmax_range, absmax_range) = default;
};

} // namespace detent::inline DETENT_ABI
