// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/grid/grid.hpp"
#include "detent/grid/name.hpp"
#include "detent/kernel/attention.hpp"
#include "detent/matrix/kv_store.hpp"
#include "detent/scale/any_grid.hpp"

namespace detent::inline DETENT_ABI {

using kernel::score_rule;

/// Keys and values of the tokens one attention layer has seen, so that a new token need not compute them again; as
/// floats, halves or codes, which attention reads as they are. Keys are stored as attention reads them, after rotary
/// embedding, so that a token is encoded once, by its own numbers, and never touched again.
class kv_layer {
public:
    /// Room for `capacity` tokens from the start; it grows. With a `window` other than 0, only so many of the last
    /// tokens are kept. @throws error when `format` does not fit heads of `head_dim`.
    kv_layer(kv_format const& format, index_t kv_heads, index_t head_dim, index_t capacity = 0, index_t window = 0)
        : keys_("keys", format, kv_heads, head_dim, window, capacity),
          values_("values", uncentered(format), kv_heads, head_dim, window, capacity) {}

    /// Tokens seen.
    index_t size() const { return keys_.size(); }
    kv_store const& keys() const { return keys_; }
    kv_store const& values() const { return values_; }

    /// Forgets all but the first `size` tokens. @throws error when tokens of the window before are no longer there.
    void truncate(index_t size) {
        keys_.truncate(size);
        values_.truncate(size);
    }

    // Templates so that only programs that attend compile them.

    /// Adds the keys and values of the next tokens, (token, kv_heads * head_dim) each. @throws error when a shape is
    /// another or a number is not finite; the cache is then as it was.
    template <class Scalar = float> void append(matrix_view keys, matrix_view values, executor_ref executor = {}) {
        if (keys.rows() != values.rows()) {
            raise(error("values", "are of " + std::to_string(values.rows()) + " tokens, and keys of " +
                                      std::to_string(keys.rows())));
        }
        values_.check<Scalar>(values); // before keys are there
        keys_.append<Scalar>(keys, executor);
        values_.append<Scalar>(values, executor);
    }

    /// Attention of the last q.rows() tokens that were added, `q` (token, heads * head_dim), to them and all before, as
    /// `rule` says; its window must be that of the cache. The result has the shape of `q`. The same bits for any
    /// executor. @throws error when the shape of `q` does not fit.
    template <class Scalar = float>
    basic_matrix<Scalar> attend(matrix_view q, score_rule const& rule, executor_ref executor = {}) const {
        index_t const hd = keys_.head_dim();
        index_t const heads = q.cols() / hd;
        if (q.cols() % hd != 0 || heads % keys_.heads() != 0 || q.rows() > size()) {
            raise(error("queries", "of shape " + std::to_string(q.rows()) + " x " + std::to_string(q.cols()) +
                                       " do not fit a cache of " + std::to_string(size()) + " tokens and " +
                                       std::to_string(keys_.heads()) + " heads of " + std::to_string(hd)));
        }
        for (index_t t = 0; t < q.rows(); ++t) {
            if (!all_finite(q.data() + t * q.outerStride(), q.cols())) {
                raise(error("queries", "those of token " + std::to_string(size() - q.rows() + t) + " are not finite"));
            }
        }
        stopwatch::section const timed(executor.watch(), work_kind::attention);
        basic_matrix<Scalar> y(q.rows(), q.cols()); // (token, heads * head_dim)
        kernel::attend(keys_.view(), values_.view(),
                       {.q = q.data(),
                        .q_stride = q.outerStride(),
                        .y = y.data(),
                        .y_stride = y.cols(),
                        .tokens = q.rows(),
                        .first = size() - q.rows(),
                        .heads = heads,
                        .kv_heads = keys_.heads()},
                       rule, executor);
        return y;
    }

private:
    static kv_format uncentered(kv_format format) {
        format.centered = false;
        return format;
    }

    kv_store keys_;
    kv_store values_;
};

/// A `kv_layer` of the grid `G`, in groups of `Group` channels, 0 for whole heads.
template <Grid G, index_t Group = 0> class quantized_cache : public kv_layer {
public:
    /// See `kv_layer`.
    quantized_cache(index_t kv_heads, index_t head_dim, index_t capacity = 0, index_t window = 0)
        : kv_layer(kv_format::of(any_grid(G{}, name_of(G{})), Group), kv_heads, head_dim, capacity, window) {}
};

} // namespace detent::inline DETENT_ABI
