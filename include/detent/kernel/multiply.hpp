// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/executor.hpp"
#include "detent/kernel/blocks.hpp"
#include "detent/kernel/decode.hpp"
#include "detent/kernel/gemm.hpp"
#include "detent/kernel/gemv.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/pack/linear.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// y = x W^T for `tokens` inputs: x (tokens, in) in the stored order of columns, y (tokens, out), rows `x_stride` and
/// `y_stride` floats apart. The same bits for any executor.
inline void multiply(packed_view const& w, float const* x, index_t x_stride, index_t tokens, float* y, index_t y_stride,
                     executor_ref executor = {}) {
    if (has_blocks(w, tokens)) {
        // Pieces long enough to be read ahead and worth a thread, whose codes stay near while all tokens meet them.
        index_t const rows = std::max<index_t>(64, (index_t{1} << 20) / std::max<index_t>(w.shape.cols, 1));
        index_t const most_tokens = 512; // whose inputs are copied
        for (index_t t = 0; t < tokens; t += most_tokens) {
            auto const inputs = block_inputs::of(w, x + t * x_stride, x_stride, std::min(most_tokens, tokens - t));
            executor.for_pieces(w.shape.rows, rows, [&](index_t first, index_t last) {
                multiply_blocks(w, first, last, inputs, y + t * y_stride, y_stride);
            });
        }
        return;
    }
    // From here on decoding into a panel pays. The choice looks at all tokens, so that pieces cannot change it.
    bool const many = tokens >= 16;
    index_t const rows_per_task = many ? 2 * panel_rows : 64;
    index_t const tokens_per_task = 256; // a panel serves this many; their inputs stay in the second-level cache
    index_t const row_tasks = ceil_div(w.shape.rows, rows_per_task);
    with_bits(w.bits, [&]<int Bits> {
        auto const product = many ? gemm<Bits> : gemv<Bits>;
        executor.for_each(row_tasks * ceil_div(tokens, tokens_per_task), [&](index_t task) {
            index_t const first = task % row_tasks * rows_per_task;
            index_t const token = task / row_tasks * tokens_per_task;
            product(w, first, std::min(w.shape.rows, first + rows_per_task), x + token * x_stride, x_stride,
                    std::min(tokens_per_task, tokens - token), y + token * y_stride, y_stride);
        });
    });
}

} // namespace detent::inline DETENT_ABI::kernel
