// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/eigen.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI {

/// The dense weights (out, in) of a packed matrix, inputs in their natural order.
inline matrix dequantize(packed_matrix const& packed) {
    auto const [rows, cols] = packed.shape();
    matrix w(rows, cols);
    for (index_t col = 0; col < cols; ++col) {
        index_t const input = packed.order.empty() ? col : packed.order[static_cast<std::size_t>(col)];
        for (index_t row = 0; row < rows; ++row) {
            w(row, input) = packed.stored_at(row, col);
        }
    }
    return w;
}

} // namespace detent::inline DETENT_ABI
