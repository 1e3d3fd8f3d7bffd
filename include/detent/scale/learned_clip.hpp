// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/finite.hpp"
#include "detent/scale/range.hpp"

namespace detent::inline DETENT_ABI {

/// How much of the range of each tile is kept, as logits (learnable weight clipping, OmniQuant, section 3.2): from
/// sigmoid(low) times the smallest number to sigmoid(high) times the largest.
template <class Scalar> struct learned_clip {
    basic_matrix<Scalar> low;  ///< (row of tiles, tile)
    basic_matrix<Scalar> high; ///< (row of tiles, tile)

    /// For so many rows of so many tiles; sigmoid(4) is 0.982.
    static learned_clip of(index_t rows, index_t tiles, Scalar logit = 4) {
        return {basic_matrix<Scalar>::Constant(rows, tiles, logit), basic_matrix<Scalar>::Constant(rows, tiles, logit)};
    }

    /// The parts of the range that tile `tile` of row `row` keeps.
    Scalar kept_low(index_t row, index_t tile) const { return sigmoid(low(row, tile)); }
    Scalar kept_high(index_t row, index_t tile) const { return sigmoid(high(row, tile)); }

private:
    static Scalar sigmoid(Scalar x) { return Scalar(1) / (Scalar(1) + std::exp(-x)); }
};

/// What a loss that grows by `per_width` with the width of a clipped range grows by with the numbers that make it.
template <class Scalar> struct range_slopes {
    Scalar highest = 0;   ///< with the largest number of the tile
    Scalar lowest = 0;    ///< with the smallest
    Scalar clip_high = 0; ///< with the logits of `learned_clip`
    Scalar clip_low = 0;
};

/// For a range from `kept_low` times the smallest number, `least`, to `kept_high` times the largest, `most`. A grid
/// with zero points spans that; any other twice the farther of both ends from 0.
template <class Scalar>
range_slopes<Scalar> slopes_of_range(Scalar per_width, Scalar least, Scalar most, Scalar kept_low, Scalar kept_high,
                                     bool has_zero) {
    range_slopes<Scalar> slopes;
    bool const low_is_farther = -kept_low * least > kept_high * most;
    Scalar const factor = has_zero ? Scalar(1) : Scalar(2);
    if (most > 0 && (has_zero || !low_is_farther)) {
        slopes.highest = factor * per_width * kept_high;
        slopes.clip_high = factor * per_width * most * kept_high * (1 - kept_high);
    }
    if (least < 0 && (has_zero || low_is_farther)) {
        slopes.lowest = -(factor * per_width * kept_low);
        slopes.clip_low = -(factor * per_width * least * kept_low * (1 - kept_low));
    }
    return slopes;
}

/// The numbers, for scale 1 and zero point 0, that rounding to the numbers of a table moves by half a step at most:
/// others are clipped. The table may hold NaN.
inline interval reach_of(std::vector<float> const& table) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    interval ends{infinity, -infinity};  // the lowest and the highest number
    interval inner{infinity, -infinity}; // those next to them
    for (float const x : table) {
        if (!is_finite(x)) {
            continue;
        }
        if (x < ends.low) {
            inner.low = std::exchange(ends.low, x);
        } else if (x > ends.low) {
            inner.low = std::min(inner.low, x);
        }
        if (x > ends.high) {
            inner.high = std::exchange(ends.high, x);
        } else if (x < ends.high) {
            inner.high = std::max(inner.high, x);
        }
    }
    DETENT_EXPECTS(ends.low < ends.high);
    return {ends.low - 0.5F * (inner.low - ends.low), ends.high + 0.5F * (ends.high - inner.high)};
}

} // namespace detent::inline DETENT_ABI
