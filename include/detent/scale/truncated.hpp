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

    /// The best scale and zero point of `tile`, stored as `format`. @throws error when an option is out of range.
    template <Grid G>
        requires AffineGrid<G> || SignedGrid<G>
    tile_scale fit(G const& grid, matrix_view tile, scale_format format) const {
        expect_option(norm >= 1 && norm < 1000, "truncated_range", "norm", norm, "from 1 to 1000");
        expect_option(steps > 0, "truncated_range", "number of steps", steps, "positive");
        interval const whole = interval::of(grid, tile);
        rounding_error<G> error(grid, tile, norm);
        if constexpr (AffineGrid<G>) {
            float const widest = (whole.high - whole.low) / (grid.highest() - grid.lowest());
            return search(error, lay_affine(grid, whole, format), widest, format);
        } else {
            float const widest = whole.symmetric().high / -grid.lowest();
            return search(error, {store(format, widest), 0}, widest, format);
        }
    }

    friend constexpr bool operator==(truncated_range, truncated_range) = default;

private:
    /// The best of `best`, the answer where no error is finite, and of all scales up to `widest` and zero points.
    template <class Scalar>
    tile_scale search(basic_tile_error<Scalar>& error, tile_scale best, float widest, scale_format format) const {
        interval const numbers = error.numbers();
        float least = error(best, std::numeric_limits<float>::infinity());
        interval needed = error.needed(least);
        auto const try_width = [&](int i) {
            float const scale = store(format, widest * static_cast<float>(i) / static_cast<float>(steps));
            for (float zero = 0; zero <= error.last_zero(); ++zero) {
                if ((numbers.low - zero) * scale > needed.low || (numbers.high - zero) * scale < needed.high) {
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
};

} // namespace detent::inline DETENT_ABI
