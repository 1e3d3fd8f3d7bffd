// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"

namespace detent::inline DETENT_ABI::nn {

/// y = x w^T + bias. `x` is (token, in), `w` (out, in), `bias` has one entry per output, or none; the result is
/// (token, out).
inline matrix linear(matrix_view x, matrix_view w, vector const& bias = {}, executor_ref executor = {}) {
    DETENT_EXPECTS(x.cols() == w.cols() && (bias.size() == w.rows() || bias.size() == 0));
    stopwatch::section const timed(executor.watch(), work::products);
    // Tiles of y large enough for a product at full speed. A single token only reads the weights once, so there a tile
    // is as many of them as pay for starting a thread.
    index_t const tokens = std::min<index_t>(x.rows(), 256);
    index_t const outs = x.rows() == 1 ? std::max<index_t>(64, (index_t{1} << 18) / std::max<index_t>(w.cols(), 1)) : 512;
    index_t const tiles_across = ceil_div(w.rows(), outs);

    matrix y(x.rows(), w.rows()); // (token, out)
    executor.for_each(x.rows() == 0 ? 0 : ceil_div(x.rows(), tokens) * tiles_across, [&](index_t tile) {
        index_t const t = tile / tiles_across * tokens;
        index_t const o = tile % tiles_across * outs;
        auto const w_tile = w.middleRows(o, std::min(outs, w.rows() - o));   // (out, in)
        auto const x_tile = x.middleRows(t, std::min(tokens, x.rows() - t)); // (token, in)
        auto y_tile = y.block(t, o, x_tile.rows(), w_tile.rows());           // (token, out)
        if (x.rows() == 1) {
            y_tile.row(0).transpose().noalias() = w_tile * x_tile.row(0).transpose();
        } else {
            y_tile.noalias() = x_tile * w_tile.transpose();
        }
        if (bias.size() > 0) {
            y_tile.rowwise() += bias.segment(o, w_tile.rows()).transpose();
        }
    });
    return y;
}

} // namespace detent::inline DETENT_ABI::nn
