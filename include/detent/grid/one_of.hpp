// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <tuple>
#include <type_traits>

#include "detent/grid/grid.hpp"

namespace detent::inline DETENT_ABI {

/// A choice among grids of equal bits without zero points, the usual one first: `searched` chooses by the error of the
/// layer's output (LLM-FP4, section 4.1). Which one it was is known at run time, from the table of the packed matrix.
template <Grid First, Grid... Others>
requires(!AffineGrid<First> && ((First::bits == Others::bits && !AffineGrid<Others>)&&...)) struct one_of {
    static constexpr int bits = First::bits;

    std::tuple<First, Others...> grids = {};

    friend constexpr bool operator==(one_of const&, one_of const&) = default;
};

/// Whether a type is `one_of` some grids.
template <class G> inline constexpr bool is_choice = false;
template <class... Gs> inline constexpr bool is_choice<one_of<Gs...>> = true;

/// A grid, or a choice among several.
template <class G>
concept GridOrChoice = Grid<G> || is_choice<G>;

} // namespace detent::inline DETENT_ABI
