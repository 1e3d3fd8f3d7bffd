// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>

#include "detent/core/eigen.hpp"
#include "detent/core/value.hpp"
#include "detent/grid/grid.hpp"
#include "detent/scale/tile_scale.hpp"

namespace detent::inline DETENT_ABI {

/// Where a tile lies: its first row and column in the whole matrix, also where a solver sees only some of its columns.
struct tile_place {
    index_t row = 0;
    index_t col = 0;
};

/// A range that looks at where a tile lies too, for instance scales that are given. Solvers then leave every column in
/// the tile that the granularity puts it into.
template <class R, class G>
concept PlacedRangeFor = Grid<G> && Value<R> &&
    requires(R const range, G const grid, matrix_view tile, tile_place place) {
    { range.fit(grid, tile, scale_format{}, place) } -> std::same_as<tile_scale>;
};

/// A range looks at the weights of a tile and answers with a scale, rounded to the format it will be stored in, for a
/// grid it can serve.
template <class R, class G>
concept RangeFor = PlacedRangeFor<R, G> ||
    (Grid<G>&& Value<R>&& requires(R const range, G const grid, matrix_view tile) {
        { range.fit(grid, tile, scale_format{}) } -> std::same_as<tile_scale>;
    });

/// Calls `fit` of a range, which may look at where the tile lies.
template <Grid G, RangeFor<G> R>
tile_scale fit_at(R const& range, G const& grid, matrix_view tile, scale_format format,
                  [[maybe_unused]] tile_place place) {
    if constexpr (PlacedRangeFor<R, G>) {
        return range.fit(grid, tile, format, place);
    } else {
        return range.fit(grid, tile, format);
    }
}

/// The interval of weights that a tile's codes shall span; it contains 0.
struct interval {
    float low = 0;
    float high = 0;

    /// From the smallest to the largest weight and 0. A tile of zeros has the range [-1, 1], where any scale will do,
    /// but [0, 0] if 0 is no number of `grid`: then it gets the smallest scale there is, to be decoded as near to 0 as
    /// can be.
    template <class G> static interval of(G const& grid, matrix_view tile) {
        interval const i{std::min(0.0F, tile.minCoeff()), std::max(0.0F, tile.maxCoeff())};
        return i.low == 0 && i.high == 0 && contains_zero(grid) ? interval{-1, 1} : i;
    }

    /// The smallest interval around 0 that holds this one, with both ends equally far from 0.
    interval symmetric() const {
        float const m = std::max(-low, high);
        return {-m, m};
    }

    interval scaled(float factor) const { return {factor * low, factor * high}; }
};

/// The lowest and the highest number of a grid.
template <Grid G> constexpr interval numbers_of(G const& grid) { return {grid.lowest(), grid.highest()}; }

/// `format` for the scales of the weights `w` on `grid`, which may be an `any_grid`: where it has a unit, that of
/// NVFP4, with which an interval around 0 that holds all weights has the largest scale there is; amax / (6 * 448) for
/// E2M1. A solver that moves weights beyond their largest has them clipped.
template <class G> scale_format with_unit(G const& grid, matrix_view w, scale_format format) {
    if (format.has_unit() && w.size() > 0) {
        interval const numbers = numbers_of(grid);
        float const farthest = 0.5F * (numbers.high - numbers.low);
        float const unit = interval::of(grid, w).symmetric().high / (farthest * e4m3::highest());
        format.unit = std::clamp(unit, unit_limits::lowest, unit_limits::highest);
    }
    return format;
}

/// The scale with which `numbers` span `width`: s = width / (highest - lowest) as `format` stores it. For E8M0 by OCP's
/// rule, from the exponents alone: 2^(floor(log2 width) - floor(log2(highest - lowest))), which for a symmetric
/// floating-point grid is 2^(floor(log2 amax) - emax). It may clip the largest weights; a search can try the next
/// scale. A width of 0 has the smallest scale.
inline float scale_over(interval numbers, float width, scale_format format) {
    float const steps = numbers.high - numbers.low;
    if (format.kind == scale_kind::e8m0 && width > 0) {
        width = std::min(width, std::numeric_limits<float>::max());
        return store(format, std::ldexp(1.0F, std::ilogb(width) - std::ilogb(steps)));
    }
    return store(format, width / steps);
}

/// Lays the numbers of an affine grid over `range`: s = (high - low) / Q, z = round(-low / s) with the stored s (GPTQ).
inline tile_scale lay_affine(interval numbers, interval range, scale_format format) {
    float const s = scale_over(numbers, range.high - range.low, format);
    return {s, std::clamp(std::nearbyint(-range.low / s), numbers.low, numbers.high)};
}
template <AffineGrid G> tile_scale lay_affine(G const& grid, interval range, scale_format format) {
    return lay_affine(numbers_of(grid), range, format);
}

/// Lays numbers over `range` as the smallest and the largest weight ask for: from end to end where there are zero
/// points, else up to the end that is farther from 0.
inline tile_scale lay_over(interval numbers, bool has_zero, interval range, scale_format format) {
    return has_zero ? lay_affine(numbers, range, format)
                    : tile_scale{scale_over(numbers, 2 * range.symmetric().high, format), 0};
}

/// A grid that can be laid over an interval symmetric around 0. One bit with a zero point cannot: its numbers would be
/// 0 and one of the ends.
template <class G>
concept SymmetricallyLaid = SignedGrid<G> ||(AffineGrid<G>&& G::bits > 1);

/// Lays a grid over an interval symmetric around 0: s = 2 m / (highest - lowest), and for an affine grid the zero point
/// in the middle of the codes.
template <SymmetricallyLaid G> tile_scale lay_symmetric(G const& grid, interval range, scale_format format) {
    float const s = scale_over(numbers_of(grid), range.high - range.low, format);
    return {s, AffineGrid<G> ? 0.5F * (grid.highest() - grid.lowest() + 1) : 0.0F};
}

} // namespace detent::inline DETENT_ABI
