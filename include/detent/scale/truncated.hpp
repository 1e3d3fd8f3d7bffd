// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <limits>

#include "detent/scale/range.hpp"
#include "detent/scale/rounding_error.hpp"

namespace detent::inline DETENT_ABI {

/// OWQ's search over the width of the range and the zero point: tries i/steps of the min-max range for every i from 1
/// to `steps` with every zero point, and keeps the scale with the smallest sum of |x - decoded x|^norm. Without a zero
/// point the lowest number of the grid is laid on i/steps of the largest absolute weight. Among equal errors the first
/// one wins: the whole range with the zero point of `minmax_range`, then in the order of the search, wide ranges before
/// narrow ones first in steps of 8, then in between.
struct truncated_range {
    float norm = 2.4F; ///< exponent of the error, at least 1
    int steps = 100;   ///< OWQ takes 100 for whole rows and 40 for groups

    /// The best scale and zero point of `tile`, stored as `format`.
    template <Grid G>
        requires AffineGrid<G> || SignedGrid<G>
    tile_scale fit(G const& grid, matrix_view tile, float_format format) const {
        interval const whole = interval::of(tile);
        tile_scale best;  // also where no error is finite
        float widest = 0; // scale
        float last_zero = 0;
        if constexpr (AffineGrid<G>) {
            best = lay_affine(grid, whole, format);
            widest = (whole.high - whole.low) / (grid.highest() - grid.lowest());
            last_zero = grid.highest();
        } else {
            widest = whole.symmetric().high / -grid.lowest();
            best = {store(format, widest), 0};
        }
        rounding_error<G> error(grid, tile, norm);
        float least = error(best, std::numeric_limits<float>::infinity());
        interval needed = error.needed(least);
        auto const try_width = [&](int i) {
            float const scale = store(format, widest * static_cast<float>(i) / static_cast<float>(steps));
            for (float zero = 0; zero <= last_zero; ++zero) {
                if ((grid.lowest() - zero) * scale > needed.low || (grid.highest() - zero) * scale < needed.high) {
                    continue;
                }
                if (float const e = error({scale, zero}, least); e < least) {
                    least = e;
                    needed = error.needed(least);
                    best = {scale, zero};
                }
            }
        };
        // Some widths first: the better the best so far, the sooner the others are given up.
        constexpr int stride = 8;
        for (int i = steps; i > 0; i -= stride) {
            try_width(i);
        }
        for (int i = steps; i > 0; --i) {
            if ((steps - i) % stride != 0) {
                try_width(i);
            }
        }
        return best;
    }

    friend constexpr bool operator==(truncated_range, truncated_range) = default;
};

} // namespace detent::inline DETENT_ABI
