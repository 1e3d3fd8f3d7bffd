// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

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
    scale_store(extents shape, extents tile, scale_format stored_as, bool with_zeros)
        : tiles{ceil_div(shape.rows, tile.rows), ceil_div(shape.cols, tile.cols)}, format(stored_as),
          scales(static_cast<std::size_t>(tiles.size())), zeros(with_zeros ? scales.size() : 0) {}

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
};

} // namespace detent::inline DETENT_ABI
