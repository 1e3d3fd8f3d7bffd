// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// How features are split in heads. Query head h reads key and value head h / (heads / kv_heads).
struct attention_heads {
    index_t heads = 0;
    index_t kv_heads = 0;
    index_t head_dim = 0;
};

/// Causal attention: each query takes the softmax(scale q k^T)-weighted mean of the values up to its own position.
/// `q` is (token, heads * head_dim), `k` and `v` are (key, kv_heads * head_dim); each holds `rows.sequences` sequences,
/// and query i of a sequence sees its keys 0 .. rows.start + i. The result has the shape of `q`.
inline matrix causal_attention(matrix_view q, matrix_view k, matrix_view v, attention_heads const& layout,
                               token_rows rows, float scale, executor_ref executor = {}) {
    index_t const hd = layout.head_dim;
    index_t const length = rows.length(q.rows());
    index_t const keys = rows.length(k.rows());
    DETENT_EXPECTS(q.cols() == layout.heads * hd && k.cols() == layout.kv_heads * hd && shape_of(k) == shape_of(v));
    DETENT_EXPECTS(layout.heads % layout.kv_heads == 0 && rows.start + length <= keys);
    stopwatch::section const timed(executor.watch(), work::attention);

    index_t const block = 64; // queries: large enough for fast products, small against a sequence, as half of the
                            // last block of keys is computed in vain
    index_t const blocks = ceil_div(length, block);
    matrix context(q.rows(), q.cols()); // (token, heads * head_dim)
    auto const attend = [&](index_t task) {
        index_t const sequence = task / (layout.heads * blocks);
        index_t const head = task / blocks % layout.heads;
        index_t const kv_head = head / (layout.heads / layout.kv_heads);
        index_t const first = task % blocks * block;
        index_t const n = std::min(block, length - first);
        index_t const seen = rows.start + first + n; // by the last query of the block

        auto const q_head = q.block(sequence * length + first, head * hd, n, hd); // (query, head_dim)
        auto const k_head = k.block(sequence * keys, kv_head * hd, seen, hd);     // (key, head_dim)
        auto const v_head = v.block(sequence * keys, kv_head * hd, seen, hd);     // (key, head_dim)
        auto out = context.block(sequence * length + first, head * hd, n, hd);    // (query, head_dim)

        matrix p(n, seen); // (query, key)
        p.noalias() = (scale * q_head) * k_head.transpose();
        vector sums(n);
        for (index_t i = 0; i < n; ++i) {
            index_t const visible = rows.start + first + i + 1;
            auto row = p.row(i).head(visible).array();
            row = (row - row.maxCoeff()).exp();
            sums(i) = row.sum();
            p.row(i).tail(seen - visible).setZero();
        }
        out.noalias() = p * v_head;
        out.array().colwise() /= sums.array(); // hd divisions a query instead of one for each key
    };
    // Single tokens are little work, so several heads make a piece.
    index_t const grain = std::max<index_t>(1, (index_t{1} << 16) / std::max<index_t>(1, std::min(block, length) * keys * hd));
    executor.for_pieces(rows.sequences * layout.heads * blocks, grain, [&](index_t begin, index_t end) {
        for (index_t task = begin; task < end; ++task) {
            attend(task);
        }
    });
    return context;
}

} // namespace detent::inline DETENT_ABI::nn
