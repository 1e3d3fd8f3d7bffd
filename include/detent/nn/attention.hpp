// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// How features are split in heads. Query head h reads key and value head h / (heads / kv_heads).
struct attention_heads {
    index_t heads = 0;
    index_t kv_heads = 0;
    index_t head_dim = 0;
    int probability_bits = 0; ///< where not 0, probabilities are rounded to multiples of 1 / (2^bits - 1)
};

/// Queries that attention takes at once: large enough for fast products, small against a sequence, as behind a causal
/// mask half of the last block of keys is computed in vain.
inline constexpr index_t queries_per_block = 64;

/// Which keys of its sequence a query sees: those up to its own position, as in decoders, or all, as in encoders.
enum class attention_mask { causal, bidirectional };

/// exp(scale q k^T - its row's maximum) of a block of queries, 0 for the keys that `mask` hides: `before` keys come
/// before the one of the first query. `p` becomes (query, key), `sums` its row sums.
template <class Scalar, class Q, class K>
void masked_exponentials(Q const& q, K const& k, Scalar scale, attention_mask mask, index_t before,
                         basic_matrix<Scalar>& p, basic_vector<Scalar>& sums) {
    p.resize(q.rows(), k.rows());
    sums.resize(q.rows());
    p.noalias() = (scale * q) * k.transpose();
    for (index_t i = 0; i < q.rows(); ++i) {
        index_t const visible = mask == attention_mask::causal ? before + i + 1 : k.rows();
        auto row = p.row(i).head(visible).array();
        row = (row - row.maxCoeff()).exp();
        sums(i) = row.sum();
        p.row(i).tail(k.rows() - visible).setZero();
    }
}

/// Probabilities rounded as `attention_heads` says.
template <class Scalar> basic_matrix<Scalar> rounded_probabilities(basic_matrix<Scalar> const& p, int bits) {
    auto const steps = static_cast<Scalar>((1 << bits) - 1);
    return (p.array() * steps).round() / steps;
}

/// Attention: each query takes the softmax(scale q k^T)-weighted mean of the values that `mask` lets it see. `queries`
/// q is (token, heads * head_dim), `k` and `v` are (key, kv_heads * head_dim); each holds `rows.sequences` sequences,
/// all with as many queries and as many keys. Behind a causal mask query i of a sequence sees its keys 0 .. rows.start
/// + i, which must be there; a bidirectional one needs at least one key. The result has the shape of `q`.
template <class Q>
basic_matrix<scalar_of<Q>> attention(Eigen::MatrixBase<Q> const& queries, basic_matrix_view<scalar_of<Q>> k,
                                     basic_matrix_view<scalar_of<Q>> v, attention_heads const& layout, token_rows rows,
                                     scalar_of<Q> scale, attention_mask mask, executor_ref executor = {}) {
    using Scalar = scalar_of<Q>;
    basic_matrix_view<Scalar> const q(queries);
    bool const causal = mask == attention_mask::causal;
    index_t const hd = layout.head_dim;
    index_t const length = rows.length(q.rows());
    index_t const keys = rows.length(k.rows());
    expect_valid(q.cols() == layout.heads * hd && k.cols() == layout.kv_heads * hd && shape_of(k) == shape_of(v),
                 "attention", "has queries, keys or values that do not fit the heads");
    expect_valid(layout.kv_heads > 0 && layout.heads % layout.kv_heads == 0, "attention",
                 "has query heads that do not share key and value heads evenly");
    expect_valid(causal ? rows.start + length <= keys : keys > 0 || length == 0, "attention",
                 "has too few keys for its queries");
    stopwatch::section const timed(executor.watch(), work_kind::attention);

    index_t const block = queries_per_block;
    index_t const blocks = ceil_div(length, block);
    basic_matrix<Scalar> context(q.rows(), q.cols()); // (token, heads * head_dim)
    auto const attend = [&](index_t task) {
        index_t const sequence = task / (layout.heads * blocks);
        index_t const head = task / blocks % layout.heads;
        index_t const kv_head = head / (layout.heads / layout.kv_heads);
        index_t const first = task % blocks * block;
        index_t const n = std::min(block, length - first);
        index_t const seen = causal ? rows.start + first + n : keys; // by the last query of the block

        auto const q_head = q.block(sequence * length + first, head * hd, n, hd); // (query, head_dim)
        auto const k_head = k.block(sequence * keys, kv_head * hd, seen, hd);     // (key, head_dim)
        auto const v_head = v.block(sequence * keys, kv_head * hd, seen, hd);     // (key, head_dim)
        auto out = context.block(sequence * length + first, head * hd, n, hd);    // (query, head_dim)

        basic_matrix<Scalar> p; // (query, key)
        basic_vector<Scalar> sums;
        masked_exponentials(q_head, k_head, scale, mask, rows.start + first, p, sums);
        if (layout.probability_bits > 0) {
            p.array().colwise() /= sums.array();
            out.noalias() = rounded_probabilities(p, layout.probability_bits) * v_head;
        } else {
            out.noalias() = p * v_head;
            out.array().colwise() /= sums.array(); // hd divisions a query instead of one for each key
        }
    };
    // Single tokens are little work, so several heads make a piece.
    index_t const grain =
        std::max<index_t>(1, (index_t{1} << 16) / std::max<index_t>(1, std::min(block, length) * keys * hd));
    executor.for_pieces(rows.sequences * layout.heads * blocks, grain, [&](index_t begin, index_t end) {
        for (index_t task = begin; task < end; ++task) {
            attend(task);
        }
    });
    return context;
}

/// `attention` behind a causal mask.
template <class Q>
basic_matrix<scalar_of<Q>> causal_attention(Eigen::MatrixBase<Q> const& queries, basic_matrix_view<scalar_of<Q>> k,
                                            basic_matrix_view<scalar_of<Q>> v, attention_heads const& layout,
                                            token_rows rows, scalar_of<Q> scale, executor_ref executor = {}) {
    return attention(queries, k, v, layout, rows, scale, attention_mask::causal, executor);
}

/// Gradients with respect to queries, keys and values, each in the shape of what it belongs to.
template <class Scalar> struct attention_gradients {
    basic_matrix<Scalar> q;
    basic_matrix<Scalar> k;
    basic_matrix<Scalar> v;
};

/// The gradients of `causal_attention` without earlier keys (rows.start is 0); `g` is that with respect to its result,
/// (token, heads * head_dim). The probabilities P are computed again, block by block: with D the gradient g v^T with
/// respect to P, that of the scores is P o (D - rowsum(P o D)). Rounding of probabilities counts as adding a constant.
template <class Q>
attention_gradients<scalar_of<Q>>
causal_attention_backward(Eigen::MatrixBase<Q> const& queries, basic_matrix_view<scalar_of<Q>> k,
                          basic_matrix_view<scalar_of<Q>> v, basic_matrix_view<scalar_of<Q>> g,
                          attention_heads const& layout, token_rows rows, scalar_of<Q> scale,
                          executor_ref executor = {}) {
    using Scalar = scalar_of<Q>;
    basic_matrix_view<Scalar> const q(queries);
    index_t const hd = layout.head_dim;
    index_t const length = rows.length(q.rows());
    expect_valid(q.cols() == layout.heads * hd && k.cols() == layout.kv_heads * hd && shape_of(k) == shape_of(v),
                 "attention", "has queries, keys or values that do not fit the heads");
    expect_valid(layout.kv_heads > 0 && layout.heads % layout.kv_heads == 0 && shape_of(g) == shape_of(q), "attention",
                 "has heads that do not share evenly, or a gradient of another shape");
    expect_valid(rows.start == 0 && k.rows() == q.rows(), "attention", "goes back only through whole sequences");
    index_t const group = layout.heads / layout.kv_heads; // query heads that share a key and value head
    stopwatch::section const timed(executor.watch(), work_kind::attention);

    attention_gradients<Scalar> result{basic_matrix<Scalar>(q.rows(), q.cols()),
                                       basic_matrix<Scalar>::Zero(k.rows(), k.cols()),
                                       basic_matrix<Scalar>::Zero(v.rows(), v.cols())};
    // All that adds to a key or value is one task, so that the order of its sum is fixed.
    executor.for_each(rows.sequences * layout.kv_heads, [&](index_t task) {
        index_t const top = task / layout.kv_heads * length; // the sequence's first row
        index_t const kv_head = task % layout.kv_heads;
        basic_matrix<Scalar> p, d; // (query, key)
        basic_vector<Scalar> sums;
        for (index_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            for (index_t first = 0; first < length; first += queries_per_block) {
                index_t const n = std::min(queries_per_block, length - first);
                index_t const seen = first + n;                             // by the last query of the block
                auto const q_head = q.block(top + first, head * hd, n, hd); // (query, head_dim)
                auto const g_head = g.block(top + first, head * hd, n, hd); // (query, head_dim)
                auto const k_head = k.block(top, kv_head * hd, seen, hd);   // (key, head_dim)
                auto const v_head = v.block(top, kv_head * hd, seen, hd);   // (key, head_dim)
                masked_exponentials(q_head, k_head, scale, attention_mask::causal, first, p, sums);
                p.array().colwise() /= sums.array();

                auto v_gradient = result.v.block(top, kv_head * hd, seen, hd);
                if (layout.probability_bits > 0) {
                    v_gradient.noalias() += rounded_probabilities(p, layout.probability_bits).transpose() * g_head;
                } else {
                    v_gradient.noalias() += p.transpose() * g_head;
                }
                d.noalias() = g_head * v_head.transpose();
                sums = p.cwiseProduct(d).rowwise().sum();
                p.array() *= (d.colwise() - sums).array() * scale; // now the gradient of q k^T
                result.q.block(top + first, head * hd, n, hd).noalias() = p * k_head;
                result.k.block(top, kv_head * hd, seen, hd).noalias() += p.transpose() * q_head;
            }
        }
    });
    return result;
}

} // namespace detent::inline DETENT_ABI::nn
