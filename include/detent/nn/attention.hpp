// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/nn/products.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// How features are split in heads. Query head h reads key and value head h / (heads / kv_heads).
struct attention_heads {
    index_t heads = 0;
    index_t kv_heads = 0;
    index_t head_dim = 0;     ///< features of a head of queries, keys and values
    int probability_bits = 0; ///< where not 0, probabilities are rounded to multiples of 1 / (2^bits - 1)
};

/// Queries that attention takes at once: large enough for fast products, small against a sequence, as behind a causal
/// mask half of the last block of keys is computed in vain.
inline constexpr index_t queries_per_block = 64;

/// Which keys of its sequence a query sees: those up to its own position, as in decoders, or all, as in encoders.
enum class attention_mask { causal, bidirectional };

/// What attention makes of the products of queries and keys before their softmax, and which keys a query sees.
struct attention_form {
    attention_mask mask = attention_mask::causal;
    double scale = 1;          ///< of the products
    index_t window = 0;        ///< the newest keys that a query sees, its own among them (causal only); 0 for all
    double soft_cap = 0;       ///< scores s become c tanh(s / c), before masks and slopes; 0 for none (Gemma 2)
    /// ALiBi, one per query head: score += slope * (key position - query position); or none.
    std::vector<float> slopes = {};
    /// One per query head: a logit in the softmax's sum that meets no value; or none (gpt-oss).
    std::vector<float> sinks = {};
};

/// Positions of consecutive keys, `end` excluded.
struct key_range {
    index_t begin = 0;
    index_t end = 0;

    index_t size() const { return end - begin; }
};

/// Positions of the keys of a sequence, of which `keys` are given: behind a causal mask the last ones up to that of the
/// last of its `length` queries, so that a cache may have dropped keys that no window shows; else from 0 on.
inline key_range given_keys(attention_form const& form, token_rows rows, index_t length, index_t keys) {
    index_t const end = form.mask == attention_mask::causal ? rows.start + length : keys;
    return {end - keys, end};
}

/// Those of the keys `given` that a query at `position` sees.
inline key_range visible_keys(attention_form const& form, key_range given, index_t position) {
    if (form.mask == attention_mask::bidirectional) {
        return given;
    }
    return {form.window > 0 ? std::max(given.begin, position + 1 - form.window) : given.begin, position + 1};
}

/// Turns the scaled products of one query of head `head` with `count` consecutive keys into what the softmax takes:
/// soft cap, then slope. `distance` is the position of the first key minus that of the query.
template <class Scalar>
void shape_scores(attention_form const& form, index_t head, index_t distance, Scalar* products, index_t count) {
    Eigen::Map<Eigen::Array<Scalar, 1, Eigen::Dynamic>> scores(products, count);
    if (form.soft_cap > 0) {
        auto const cap = static_cast<Scalar>(form.soft_cap);
        scores = cap * (scores / cap).tanh();
    }
    if (!form.slopes.empty()) {
        auto const slope = static_cast<Scalar>(form.slopes[static_cast<std::size_t>(head)]);
        for (index_t j = 0; j < count; ++j) {
            products[j] += slope * static_cast<Scalar>(distance + j);
        }
    }
}

/// Exponentials of the scores of a block of queries, before they are divided by their sums.
template <class Scalar> struct block_exponentials {
    basic_matrix<Scalar> p;     ///< (query, key); 0 for keys that a query does not see
    basic_vector<Scalar> sums;  ///< of each query, that of its sink included
    basic_vector<Scalar> sinks; ///< the exponential of each query's sink; empty where there are none
};

/// Turns `e.p`, the scaled products of queries at `first`, `first` + 1, ... with the keys at `keys`, into exp(score -
/// its row's maximum), and fills in the rest of `e`.
template <class Scalar>
void exponentiate(attention_form const& form, index_t head, index_t first, key_range keys,
                  block_exponentials<Scalar>& e) {
    bool const plain = form.soft_cap == 0 && form.slopes.empty();
    e.sums.resize(e.p.rows());
    e.sinks.resize(form.sinks.empty() ? 0 : e.p.rows());
    for (index_t i = 0; i < e.p.rows(); ++i) {
        key_range const seen = visible_keys(form, keys, first + i);
        index_t const hidden = seen.begin - keys.begin; // keys before those seen
        auto row = e.p.row(i).segment(hidden, seen.size()).array();
        if (!plain) {
            shape_scores(form, head, seen.begin - (first + i), row.data(), row.size());
        }
        Scalar highest = row.maxCoeff();
        if (!form.sinks.empty()) {
            auto const sink = static_cast<Scalar>(form.sinks[static_cast<std::size_t>(head)]);
            highest = std::max(highest, sink);
            e.sinks(i) = std::exp(sink - highest);
        }
        row = (row - highest).exp();
        e.sums(i) = row.sum();
        if (!form.sinks.empty()) {
            e.sums(i) += e.sinks(i);
        }
        e.p.row(i).head(hidden).setZero();
        e.p.row(i).tail(keys.end - seen.end).setZero();
    }
}

/// Probabilities rounded as `attention_heads` says.
template <class Scalar> basic_matrix<Scalar> rounded_probabilities(basic_matrix<Scalar> const& p, int bits) {
    auto const steps = static_cast<Scalar>((1 << bits) - 1);
    return (p.array() * steps).round() / steps;
}

/// Checks what `attention` and its gradients expect of their arguments, for `length` queries and `keys` keys a
/// sequence, by shapes (rows, columns).
inline void expect_attention(extents q, extents k, [[maybe_unused]] extents v, attention_heads const& layout,
                             token_rows rows, attention_form const& form) {
    [[maybe_unused]] index_t const length = rows.length(q.rows), keys = rows.length(k.rows);
    [[maybe_unused]] auto const per_head = [&](std::vector<float> const& numbers) {
        return numbers.empty() || static_cast<index_t>(numbers.size()) == layout.heads;
    };
    [[maybe_unused]] index_t const first = given_keys(form, rows, length, keys).begin;
    DETENT_EXPECTS(q.cols == layout.heads * layout.head_dim && k.cols == layout.kv_heads * layout.head_dim && k == v);
    DETENT_EXPECTS(layout.heads % layout.kv_heads == 0 && per_head(form.slopes) && per_head(form.sinks));
    if (form.mask == attention_mask::bidirectional) {
        DETENT_EXPECTS(form.window == 0 && (keys > 0 || length == 0));
    } else {
        // All that the first query sees, if there is one.
        DETENT_EXPECTS(first == 0 || (first > 0 && form.window > 0 && first <= rows.start + 1 - form.window) ||
                       length == 0);
    }
}

/// Attention: each query takes the mean of the values of the keys that it sees, weighted by the softmax of their
/// scores, which `form` makes of scale q k^T. `queries` q is (token, heads * head_dim), `k` and `v` are (key, kv_heads
/// * head_dim); each holds `rows.sequences` sequences, all with as many queries and as many keys. Query i of a sequence
/// is at position rows.start + i. Behind a causal mask the keys are the last ones up to the position of the last query:
/// all from 0 on, or at least those that windows show. A bidirectional mask needs at least one key, and keys are at
/// positions 0, 1, ... The work is linear in the window. The result has the shape of `q`.
template <class Q>
basic_matrix<scalar_of<Q>> attention(Eigen::MatrixBase<Q> const& queries, basic_matrix_view<scalar_of<Q>> k,
                                     basic_matrix_view<scalar_of<Q>> v, attention_heads const& layout, token_rows rows,
                                     attention_form const& form, executor_ref executor = {}) {
    using Scalar = scalar_of<Q>;
    basic_matrix_view<Scalar> const q(queries);
    index_t const hd = layout.head_dim;
    index_t const length = rows.length(q.rows());
    index_t const keys = rows.length(k.rows());
    key_range const given = given_keys(form, rows, length, keys);
    expect_attention(shape_of(q), shape_of(k), shape_of(v), layout, rows, form);
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
        index_t const position = rows.start + first;
        // From the first key of the first query to the last one of the last query.
        key_range const seen{visible_keys(form, given, position).begin,
                             visible_keys(form, given, position + n - 1).end};
        index_t const top = sequence * keys + seen.begin - given.begin;

        auto const q_head = q.block(sequence * length + first, head * hd, n, hd); // (query, head_dim)
        auto const k_head = k.block(top, kv_head * hd, seen.size(), hd);          // (key, head_dim)
        auto const v_head = v.block(top, kv_head * hd, seen.size(), hd);          // (key, head_dim)
        auto out = context.block(sequence * length + first, head * hd, n, hd);    // (query, head_dim)

        block_exponentials<Scalar> e;
        e.p.setZero(n, seen.size());
        add_product(e.p, q_head, k_head.transpose(), static_cast<Scalar>(form.scale));
        exponentiate(form, head, position, seen, e);
        out.setZero();
        if (layout.probability_bits > 0) {
            e.p.array().colwise() /= e.sums.array();
            add_product(out, rounded_probabilities(e.p, layout.probability_bits), v_head);
        } else {
            add_product(out, e.p, v_head);
            out.array().colwise() /= e.sums.array(); // hd divisions a query instead of one for each key
        }
    };
    // Single tokens are little work, so several heads make a piece.
    index_t const seen_by_block = form.window > 0 ? std::min(keys, form.window + block) : keys;
    index_t const grain =
        std::max<index_t>(1, (index_t{1} << 16) / std::max<index_t>(1, std::min(block, length) * seen_by_block * hd));
    executor.for_pieces(rows.sequences * layout.heads * blocks, grain, [&](index_t begin, index_t end) {
        for (index_t task = begin; task < end; ++task) {
            attend(task);
        }
    });
    return context;
}

/// Gradients with respect to queries, keys, values and sinks, each in the shape of what it belongs to.
template <class Scalar> struct attention_gradients {
    basic_matrix<Scalar> q;
    basic_matrix<Scalar> k;
    basic_matrix<Scalar> v;
    basic_vector<Scalar> sinks; ///< one per query head; empty where there are none
};

/// The gradients that a block of queries at `first`, `first` + 1, ... of a head adds to those of its keys and values,
/// which are at `keys`; all are (query or key, head_dim). The gradient of the queries is overwritten. Answers that with
/// respect to the head's sink, or 0.
template <class Scalar, class Q, class K, class G, class Out>
Scalar attention_block_backward(attention_form const& form, index_t head, index_t first, key_range keys, int bits,
                                Q const& q, K const& k, K const& v, G const& g, Out q_gradient, Out k_gradient,
                                Out v_gradient) {
    auto const scale = static_cast<Scalar>(form.scale);
    block_exponentials<Scalar> e;
    e.p.setZero(q.rows(), k.rows());
    add_product(e.p, q, k.transpose(), scale);
    basic_matrix<Scalar> cap_slope; // (query, key), the derivative of the soft cap; empty where there is none
    if (form.soft_cap > 0) {
        cap_slope = Scalar(1) - (e.p.array() / static_cast<Scalar>(form.soft_cap)).tanh().square();
    }
    exponentiate(form, head, first, keys, e);
    e.p.array().colwise() /= e.sums.array();
    if (bits > 0) {
        add_product(v_gradient, rounded_probabilities(e.p, bits).transpose(), g);
    } else {
        add_product(v_gradient, e.p.transpose(), g);
    }
    basic_matrix<Scalar> d = basic_matrix<Scalar>::Zero(q.rows(), k.rows()); // (query, key)
    add_product(d, g, v.transpose());
    basic_vector<Scalar> const along = e.p.cwiseProduct(d).rowwise().sum();
    Scalar sink_gradient(0);
    if (e.sinks.size() > 0) {
        sink_gradient = -(e.sinks.array() / e.sums.array() * along.array()).sum();
    }
    e.p.array() *= (d.colwise() - along).array() * scale; // now the gradient of q k^T
    if (form.soft_cap > 0) {
        e.p.array() *= cap_slope.array();
    }
    q_gradient.setZero();
    add_product(q_gradient, e.p, k);
    add_product(k_gradient, e.p.transpose(), q);
    return sink_gradient;
}

/// The gradients of `attention`; `g` is that with respect to its result, (token, heads * head_dim). The probabilities P
/// are computed again, block by block: with D the gradient g v^T with respect to P, that of the scores is P o (D -
/// rowsum(P o D)), and that of a sink of probability p the sum of -p rowsum(P o D) over its queries. Rounding of
/// probabilities counts as adding a constant.
template <class Q>
attention_gradients<scalar_of<Q>>
attention_backward(Eigen::MatrixBase<Q> const& queries, basic_matrix_view<scalar_of<Q>> k,
                   basic_matrix_view<scalar_of<Q>> v, basic_matrix_view<scalar_of<Q>> g, attention_heads const& layout,
                   token_rows rows, attention_form const& form, executor_ref executor = {}) {
    using Scalar = scalar_of<Q>;
    basic_matrix_view<Scalar> const q(queries);
    index_t const hd = layout.head_dim;
    index_t const length = rows.length(q.rows());
    index_t const keys = rows.length(k.rows());
    index_t const group = layout.heads / layout.kv_heads; // query heads that share a key and value head
    key_range const given = given_keys(form, rows, length, keys);
    expect_attention(shape_of(q), shape_of(k), shape_of(v), layout, rows, form);
    DETENT_EXPECTS(shape_of(g) == shape_of(q));
    stopwatch::section const timed(executor.watch(), work_kind::attention);

    attention_gradients<Scalar> result{basic_matrix<Scalar>(q.rows(), q.cols()),
                                       basic_matrix<Scalar>::Zero(k.rows(), k.cols()),
                                       basic_matrix<Scalar>::Zero(v.rows(), v.cols()), basic_vector<Scalar>()};
    basic_matrix<Scalar> sinks = basic_matrix<Scalar>::Zero(rows.sequences, layout.heads); // (sequence, head)
    // All that adds to a key or value is one task, so that the order of its sum is fixed.
    executor.for_each(rows.sequences * layout.kv_heads, [&](index_t task) {
        index_t const sequence = task / layout.kv_heads, kv_head = task % layout.kv_heads;
        for (index_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            for (index_t first = 0; first < length; first += queries_per_block) {
                index_t const n = std::min(queries_per_block, length - first);
                index_t const position = rows.start + first, row = sequence * length + first;
                key_range const seen{visible_keys(form, given, position).begin,
                                     visible_keys(form, given, position + n - 1).end};
                index_t const top = sequence * keys + seen.begin - given.begin;
                sinks(sequence, head) += attention_block_backward<Scalar>(
                    form, head, position, seen, layout.probability_bits, q.block(row, head * hd, n, hd),
                    k.block(top, kv_head * hd, seen.size(), hd), v.block(top, kv_head * hd, seen.size(), hd),
                    g.block(row, head * hd, n, hd), result.q.block(row, head * hd, n, hd),
                    result.k.block(top, kv_head * hd, seen.size(), hd),
                    result.v.block(top, kv_head * hd, seen.size(), hd));
            }
        }
    });
    if (!form.sinks.empty()) {
        result.sinks = sinks.colwise().sum().transpose();
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::nn
