// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>

#include "detent/core/eigen.hpp"
#include "detent/grid/grid.hpp"
#include "detent/scale/tile_scale.hpp"

namespace detent::inline DETENT_ABI {

/// A range looks at the weights of a tile and answers with a scale, rounded to the format it will be stored in, for a
/// grid it can serve.
template <class R, class G>
concept RangeFor = Grid<G> && std::regular<R> && requires(R const range, G const grid, matrix_view tile) {
    { range.fit(grid, tile, float_format::f16) } -> std::same_as<tile_scale>;
};

/// The interval of weights that a tile's codes shall span; it contains 0.
struct interval {
    float low = 0;
    float high = 0;

    /// From the smallest to the largest weight and 0; [-1, 1] for a tile of zeros.
    static interval of(matrix_view tile) {
        interval const i{std::min(0.0F, tile.minCoeff()), std::max(0.0F, tile.maxCoeff())};
        return i.low == 0 && i.high == 0 ? interval{-1, 1} : i;
    }

    /// The smallest interval around 0 that holds this one, with both ends equally far from 0.
    interval symmetric() const {
        float const m = std::max(-low, high);
        return {-m, m};
    }

    interval scaled(float factor) const { return {factor * low, factor * high}; }
};

/// Lays an affine grid over `range`: s = (high - low) / Q, z = round(-low / s) with the stored s (GPTQ).
template <AffineGrid G> tile_scale lay_affine(G const& grid, interval range, float_format format) {
    float const s = store(format, (range.high - range.low) / (grid.highest() - grid.lowest()));
    return {s, std::clamp(std::nearbyint(-range.low / s), grid.lowest(), grid.highest())};
}

/// A grid that can be laid over an interval symmetric around 0. One bit with a zero point cannot: its numbers would be
/// 0 and one of the ends.
template <class G>
concept SymmetricallyLaid = SignedGrid<G> || (AffineGrid<G> && G::bits > 1);

/// Lays a grid over an interval symmetric around 0: s = 2 m / (highest - lowest), and for an affine grid the zero point
/// in the middle of the codes.
template <SymmetricallyLaid G> tile_scale lay_symmetric(G const& grid, interval range, float_format format) {
    float const s = store(format, (range.high - range.low) / (grid.highest() - grid.lowest()));
    return {s, AffineGrid<G> ? 0.5F * (grid.highest() - grid.lowest() + 1) : 0.0F};
}

} // namespace detent::inline DETENT_ABI
