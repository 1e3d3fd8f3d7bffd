// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// What a product takes the numbers of its inputs for.
enum class input_format {
    /// What they are, or with up to eight tokens what differs from that by 2^-23 of the largest of eight consecutive
    /// columns at most: the error of a long sum of floats is not smaller.
    f32,
    /// Inputs and weights may be rounded to bfloat16, each by a relative 2^-8 at most; sums are those of floats.
    bf16,
    /// Inputs are rounded to integers of -127 to 127 times a scale for each token and `input_group` columns of a tile:
    /// by 1/254 of the largest input there at most. The weights of grids whose numbers are not small integers times a
    /// power of two may be rounded by 1/254 of the largest number. Sums of a tile's integers are exact.
    int8
};

/// Columns of a tile whose inputs share a scale in `input_format::int8`.
inline constexpr index_t input_group = 128;

} // namespace detent::inline DETENT_ABI
