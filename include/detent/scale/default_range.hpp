// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <type_traits>

#include "detent/scale/absmax.hpp"
#include "detent/scale/least_squares.hpp"
#include "detent/scale/minmax.hpp"

namespace detent::inline DETENT_ABI {

/// The range a grid gets when none is named: min-max with a zero point, absmax without. With only two numbers absmax
/// would round every weight to the size of the largest one, for Gaussian weights worse than rounding them all to 0; so
/// these grids get least squares.
template <Grid G>
using default_range =
    std::conditional_t<AffineGrid<G>, minmax_range,
                       std::conditional_t<SignedGrid<G> && G::bits == 1, least_squares_range, absmax_range>>;

} // namespace detent::inline DETENT_ABI
