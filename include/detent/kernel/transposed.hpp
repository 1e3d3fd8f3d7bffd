// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "detent/core/executor.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/kernel/known.hpp"
#include "detent/kernel/row_pieces.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/product.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// y = g W for `tokens` gradients: g (tokens, out), y (tokens, in) in the stored order of columns, rows `g_stride` and
/// `y_stride` floats apart. W is decoded block by block. The same bits for any executor.
template <class Known = any_weights>
void multiply_transposed(packed_view const& w, float const* g, index_t g_stride, index_t tokens, float* y,
                         index_t y_stride, executor_ref executor = {}) {
    constexpr index_t block_rows = 256;   // as many terms as `products` sums at a time
    constexpr index_t block_cols = 256;   // such a block fits the second-level cache
    constexpr index_t block_tokens = 512; // so many products make decoding cheap
    index_t const col_tasks = ceil_div(w.shape.cols, block_cols);
    index_t const most_rows = std::min(block_rows, w.shape.rows);
    index_t const floats_of_block = most_rows * block_cols;
    index_t const tasks = col_tasks * ceil_div(tokens, block_tokens);
    index_t const of_worker = floats_of_block + ceil_div(bytes_of_readable_rows(w, most_rows), 64) * 16;
    scratch memory(executor);
    auto* const of_all = memory.take<float>(std::min(executor.workers(), tasks) * of_worker);
    std::atomic<index_t> next_worker = 0;
    auto const decoded_block = [&] { return of_all + next_worker++ * of_worker; };
    with_bits_of<Known>(w, [&]<int Bits> {
        executor.for_pieces(tasks, 1, decoded_block, [&](float* decoded, index_t task, index_t) {
            index_t const col = task % col_tasks * block_cols;
            index_t const cols = std::min(block_cols, w.shape.cols - col);
            index_t const token = task / col_tasks * block_tokens;
            index_t const count = std::min(block_tokens, tokens - token);
            float* const sums = y + token * y_stride + col;
            for (index_t t = 0; t < count; ++t) {
                std::fill_n(sums + t * y_stride, cols, 0.0F);
            }
            for (index_t row = 0; row < w.shape.rows; row += block_rows) {
                index_t const rows = std::min(block_rows, w.shape.rows - row);
                auto* const rest = reinterpret_cast<std::uint8_t*>(decoded + floats_of_block);
                with_readable_rows(w, row, row + rows, rest, [&](packed_view const& part, index_t offset) {
                    index_t const end = std::min(row + rows - offset, part.shape.rows);
                    for (index_t r = std::max(row - offset, index_t{0}); r < end; ++r) {
                        decode<Bits>(part, r, col, cols, decoded + (offset + r - row) * block_cols);
                    }
                });
                simd::products<float>::add(count, cols, rows, 1.0F, {g + token * g_stride + row, g_stride},
                                           {decoded, block_cols}, sums, y_stride);
            }
        });
    });
}

} // namespace detent::inline DETENT_ABI::kernel
