// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "detent/core/index.hpp"
#include "detent/matrix/weak_columns.hpp"

namespace detent::inline DETENT_ABI {

/// Whether the numbers of a table are consecutive: `table[c]` is `table[0] + c` for every code c.
constexpr bool is_consecutive(std::span<float const> table) {
    std::size_t c = 0;
    while (c < table.size() && table[c] == table[0] + static_cast<float>(c)) {
        ++c;
    }
    return c == table.size();
}

/// A borrowed packed matrix, as a kernel sees it: of its grid there is no more than the number of bits and a table.
/// Row r starts at `codes + r * row_bytes`; 64 bytes after the last row may be read.
/// A weight is `(table[code] - zero) * scale`.
struct packed_view {
    std::uint8_t const* codes;
    index_t row_bytes;
    int bits;
    extents shape;       ///< (out, in)
    extents tile;        ///< weights that share a scale
    index_t tiles_per_row; ///< scales of a row of tiles
    float const* scales;
    float const* zeros; ///< null for grids without a zero point
    float const* table; ///< the numbers of the 2^bits codes
    bool consecutive;   ///< whether the table `is_consecutive`, as that of integers is
    weak_view weak = {}; ///< columns whose numbers stand in place of those of the codes, which are 0 there
};

} // namespace detent::inline DETENT_ABI
