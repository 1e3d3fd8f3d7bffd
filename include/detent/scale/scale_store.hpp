// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/scale/tile_scale.hpp"

namespace detent::inline DETENT_ABI {

/// The scales, and zero points if the grid has them, of all tiles of a matrix, row by row.
struct scale_store {
    extents tiles;
    scale_format format;
    std::vector<float> scales; ///< (tiles.rows, tiles.cols), each exact in `format`; its unit is part of them
    std::vector<float> zeros;  ///< the same shape, or empty

    scale_store() = default;
    /// For tiles of that shape; a matrix without weights has none. @throws error when a tile has no weights.
    scale_store(extents shape, extents tile, scale_format stored_as, bool with_zeros)
        : tiles(tiles_of(shape, tile)), format(stored_as), scales(static_cast<std::size_t>(tiles.size())),
          zeros(with_zeros ? scales.size() : 0) {}

    /// Whether there is a scale for each tile, and as many zero points or none.
    bool complete() const {
        auto const count = static_cast<std::size_t>(tiles.size());
        return scales.size() == count && (zeros.empty() || zeros.size() == count);
    }

    tile_scale at(index_t tile_row, index_t tile_col) const {
        auto const i = static_cast<std::size_t>(tile_row * tiles.cols + tile_col);
        return {scales[i], zeros.empty() ? 0.0F : zeros[i]};
    }
    void set(index_t tile_row, index_t tile_col, tile_scale s) {
        auto const i = static_cast<std::size_t>(tile_row * tiles.cols + tile_col);
        scales[i] = s.scale;
        if (!zeros.empty()) {
            zeros[i] = s.zero;
        }
    }

    friend bool operator==(scale_store const&, scale_store const&) = default;

private:
    static extents tiles_of(extents shape, extents tile) {
        if (shape.rows <= 0 || shape.cols <= 0) {
            return {};
        }
        expect_valid(tile.rows > 0 && tile.cols > 0, "scales", "are for tiles without weights");
        return {ceil_div(shape.rows, tile.rows), ceil_div(shape.cols, tile.cols)};
    }
};

} // namespace detent::inline DETENT_ABI
