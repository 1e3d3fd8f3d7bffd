// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/index.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/lookup.hpp"
#include "detent/simd/unpack.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// The most weights of a row that are decoded at a time.
inline constexpr index_t longest_run = 1024;

/// Writes the weights at `row`, stored columns [begin, begin + n), to `out`; `begin` is a multiple of 8 and
/// n <= longest_run. Weak columns have their own numbers.
template <int Bits>
void decode(packed_view const& w, index_t row, index_t begin, index_t n, float* out) noexcept {
    alignas(64) code codes[longest_run];
    simd::unpack<Bits>(w.codes + row * w.row_bytes + begin / 8 * Bits, n, codes);
    simd::lookup<Bits>(w.table, codes, n, out, w.consecutive);
    index_t const tiles = row / w.tile.rows * w.tiles_per_row;
    for (index_t i = 0; i < n;) {
        index_t const in_row = (begin + i) / w.tile.cols;
        index_t const end = std::min(n, (in_row + 1) * w.tile.cols - begin);
        float const scale = w.scales[tiles + in_row];
        float const zero = w.zeros != nullptr ? w.zeros[tiles + in_row] : 0.0F;
        for (; i < end; ++i) {
            out[i] = (out[i] - zero) * scale;
        }
    }
    put_weak(w.weak, row, begin, n, out);
}

} // namespace detent::inline DETENT_ABI::kernel
