// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/row_order.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE packed_matrix move_rows(packed_matrix const& w, std::span<index_t const> order) {
    std::vector<bool> found(static_cast<std::size_t>(w.shape().rows));
    bool each = order.size() == found.size();
    for (std::size_t r = 0; each && r < order.size(); ++r) {
        each = order[r] >= 0 && order[r] < w.shape().rows && !found[static_cast<std::size_t>(order[r])];
        if (each) {
            found[static_cast<std::size_t>(order[r])] = true;
        }
    }
    expect_valid(each, "order of rows", "does not have each row once");
    expect_valid(w.tile.rows == 1 || order.empty(), "packed matrix", "has rows that share scales");
    packed_matrix moved = w;
    for (index_t row = 0; row < w.shape().rows; ++row) {
        index_t const from = order[static_cast<std::size_t>(row)];
        std::memcpy(moved.codes.data() + row * w.row_bytes(), w.codes.data() + from * w.row_bytes(),
                    static_cast<std::size_t>(w.row_bytes()));
        for (index_t tile = 0; tile < w.scales.tiles.cols; ++tile) {
            moved.scales.set(row, tile, w.scales.at(from, tile));
        }
        for (index_t k = 0; k < w.weak.count(); ++k) {
            moved.weak.set(k, row, w.weak.at(k, from));
        }
    }
    return moved;
}

} // namespace detent::inline DETENT_ABI::io
