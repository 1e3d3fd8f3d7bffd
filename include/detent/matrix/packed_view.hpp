// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "detent/core/index.hpp"
#include "detent/matrix/weak_columns.hpp"
#include "detent/scale/scale_format.hpp"

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
/// Row r starts at `codes + r * row_bytes`, at any address. A weight is `(table[code] - zero) * scale`. Scales are
/// floats or, where `scales` is null, as a file has them: `stored_scales` in `stored_as`, at any address,
/// little-endian. Nothing is read after the last code or scale but `readable` bytes of codes, so that a mapped file is
/// multiplied as it lies.
struct packed_view {
    std::uint8_t const* codes;
    index_t row_bytes;
    int bits;
    extents shape;         ///< (out, in)
    extents tile;          ///< weights that share a scale
    index_t tiles_per_row; ///< scales of a row of tiles
    float const* scales;   ///< (tiles); null where they are stored
    float const* zeros;    ///< null for grids without a zero point
    float const* table;    ///< the numbers of the 2^bits codes
    bool consecutive;      ///< whether the table `is_consecutive`, as that of integers is
    weak_view weak = {};   ///< columns whose numbers stand in place of those of the codes, which are 0 there
    std::uint8_t const* stored_scales = nullptr;
    scale_format stored_as = {};
    index_t readable = 0; ///< bytes after the last row that may be read; with 64 kernels need no copy of the last rows

    /// The scale of tile number `i`.
    float scale_at(index_t i) const {
        if (scales != nullptr) {
            return scales[i];
        }
        std::uint8_t const* const from = stored_scales + i * (bits_of(stored_as) / 8);
        auto const read = [from]<class T>(T number) {
            std::memcpy(&number, from, sizeof number);
            return static_cast<float>(number);
        };
        switch (stored_as.kind) {
        case scale_kind::f16:
            return read(half{});
        case scale_kind::bf16:
            return read(bfloat16{});
        case scale_kind::f32:
            return read(float{});
        default:
            return scale_of(stored_as, *from);
        }
    }
};

} // namespace detent::inline DETENT_ABI
