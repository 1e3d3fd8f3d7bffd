// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/index.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/pack/linear.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// Output `row` of a packed matrix times one input vector in stored order, in double and code by code: what every other
/// kernel is compared with.
inline double reference_dot(packed_view const& w, index_t row, float const* x) noexcept {
    double sum = 0;
    for (index_t k = 0; k < w.shape.cols; ++k) {
        code const c = with_bits(w.bits, [&]<int Bits> {
            return linear_packing<Bits>::get(w.codes + row * w.row_bytes, k);
        });
        index_t const tile = row / w.tile.rows * w.tiles_per_row + k / w.tile.cols;
        double const zero = w.zeros != nullptr ? w.zeros[tile] : 0.0;
        sum += (static_cast<double>(w.table[c]) - zero) * w.scale_at(tile) * x[k];
    }
    for (index_t k = 0; k < w.weak.count; ++k) { // where the codes stand for 0
        sum += double{w.weak.at(k, row)} * x[w.weak.columns[k]];
    }
    return sum;
}

} // namespace detent::inline DETENT_ABI::kernel
