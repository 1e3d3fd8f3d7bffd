// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <limits>
#include <utility>

#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/scale/rounding_error.hpp"

namespace detent::inline DETENT_ABI {

/// Shrinks the min-max range (absmax where the grid has no zero point or `symmetric` asks for it) step by step and
/// keeps the one with the smallest sum of |x - decoded x|^norm: clipping a few outliers can serve the others better.
/// Where scales are powers of two, which may clip the whole range, it tries the next larger one too.
struct mse_range {
    float norm = 2.4F;       ///< exponent of the error, at least 1
    int steps = 100;         ///< the range shrinks by 1/steps at a time
    float max_shrink = 0.8F; ///< and by less than this in all
    bool symmetric = false;  ///< keep the zero point in the middle, where the grid has one

    /// The best scale and zero point of `tile`, stored as `format`. @throws error when an option is out of range.
    template <Grid G>
        requires AffineGrid<G> || SignedGrid<G>
    tile_scale fit(G const& grid, matrix_view tile, scale_format format) const {
        expect_option(norm >= 1 && norm < 1000, "mse_range", "norm", norm, "from 1 to 1000");
        expect_option(steps > 0, "mse_range", "number of steps", steps, "positive");
        expect_option(max_shrink >= 0 && max_shrink <= 1, "mse_range", "largest shrinkage", max_shrink, "from 0 to 1");
        interval const whole = interval::of(grid, tile);
        rounding_error<G> error(grid, tile, norm);
        tile_scale best = lay(grid, whole, 1, format); // also where no error is finite
        float least = std::numeric_limits<float>::infinity();
        tile_scale last{0, 0};
        auto const try_factor = [&](float factor) {
            tile_scale const candidate = lay(grid, whole, factor, format);
            if (candidate == std::exchange(last, candidate)) {
                return; // powers of two are few
            }
            if (float const e = error(candidate, least); e < least) {
                least = e;
                best = candidate;
            }
        };
        if (format.kind == scale_kind::e8m0) {
            try_factor(2);
        }
        for (int i = 0; i < static_cast<int>(max_shrink * static_cast<float>(steps)); ++i) {
            try_factor(1 - static_cast<float>(i) / static_cast<float>(steps));
        }
        return best;
    }

    friend constexpr bool operator==(mse_range, mse_range) = default;

private:
    template <Grid G> tile_scale lay(G const& grid, interval whole, float factor, scale_format format) const {
        if constexpr (AffineGrid<G>) {
            if (!symmetric) {
                return lay_affine(grid, whole.scaled(factor), format);
            }
        }
        if constexpr (SymmetricallyLaid<G>) {
            return lay_symmetric(grid, whole.symmetric().scaled(factor), format);
        } else { // one bit with a zero point
            return lay_affine(grid, whole.scaled(factor), format);
        }
    }
};

} // namespace detent::inline DETENT_ABI
