// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <concepts>

#include "detent/core/index.hpp"
#include "detent/core/value.hpp"

namespace detent::inline DETENT_ABI {

/// A finite set of numbers, each named by a code below `2^bits`. `encode` answers the nearest number's code and
/// `decode` its number; codes that name no number decode to NaN and are never encoded. Inputs are finite. `lowest` and
/// `highest` are constant expressions.
template <class G>
concept Grid = Value<G> && (G::bits >= 1 && G::bits <= 8) && requires(G const grid, float x, code c) {
    { grid.lowest() } -> std::same_as<float>;
    { grid.highest() } -> std::same_as<float>;
    { grid.encode(x) } -> std::same_as<code>;
    { grid.decode(c) } -> std::same_as<float>;
};

/// A grid of consecutive integers whose codes may be shifted by a zero point:
/// `encode(x, zero)` is `clamp(round(x) + zero)`, and the number meant is `decode(code) - zero`.
template <class G>
concept AffineGrid = Grid<G> && requires(G const grid, float x, float zero) {
    requires G::has_zero;
    { grid.encode(x, zero) } -> std::same_as<code>;
};

/// A grid with numbers on both sides of zero, which can serve weights of both signs without a zero point.
template <class G>
concept SignedGrid = Grid<G> && !AffineGrid<G> && (G{}.lowest() < 0 && G{}.highest() > 0);

/// Whether 0 is a number of `grid`; with a zero point it always is. Only then a tile of zeros can be rounded without an
/// error.
template <Grid G> constexpr bool contains_zero(G const& grid) {
    return AffineGrid<G> || grid.decode(grid.encode(0)) == 0;
}

/// The numbers of all codes in order, as a kernel wants them.
template <Grid G> constexpr auto table_of(G const& grid) {
    std::array<float, (std::size_t{1} << G::bits)> table{};
    for (std::size_t c = 0; c < table.size(); ++c) {
        table[c] = grid.decode(static_cast<code>(c));
    }
    return table;
}

} // namespace detent::inline DETENT_ABI
