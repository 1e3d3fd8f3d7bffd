// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <utility>

#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/scale/range.hpp"
#include "detent/scale/scale_store.hpp"

namespace detent::inline DETENT_ABI {

/// Scales that are given: learned, searched, or those of another matrix. Each tile gets the one of its place in the
/// whole matrix, also from solvers that take columns away.
struct given_range {
    scale_store scales;    ///< (row of tiles, tile)
    extents tile = {1, 1}; ///< of the matrix they are for, the granularity of the quantizer

    /// The scale of the tile that begins there. @throws error when there is none, or it is not positive and finite.
    template <Grid G> tile_scale fit(G const&, matrix_view, scale_format, tile_place place) const {
        expect_valid(tile.rows > 0 && tile.cols > 0, "given scales", "are for tiles without weights");
        expect_valid(scales.complete(), "given scales", "are not as many as the tiles they are for");
        index_t const row = place.row / tile.rows;
        index_t const col = place.col / tile.cols;
        if (row >= scales.tiles.rows || col >= scales.tiles.cols) {
            raise(error("given scales", "have none for the tile at row " + std::to_string(place.row) + ", column " +
                                            std::to_string(place.col)));
        }
        tile_scale const s = scales.at(row, col);
        if (!(s.scale > 0) || !is_finite(s.scale)) {
            raise(error("given scales", "that of the tile at row " + std::to_string(place.row) + ", column " +
                                            std::to_string(place.col) + " is " + std::to_string(s.scale)));
        }
        return s;
    }

    friend bool operator==(given_range const&, given_range const&) = default;
};

} // namespace detent::inline DETENT_ABI
