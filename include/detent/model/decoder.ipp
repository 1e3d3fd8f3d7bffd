// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/linear.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE matrix decoder::embed(std::span<nn::token_id const> tokens, nn::token_rows rows) const {
    auto const count = static_cast<index_t>(tokens.size());
    index_t const length = rows.length(count);
    if (rows.start + length > configuration.max_positions) {
        throw error("sequence of " + std::to_string(rows.start + length) + " tokens",
                    "is longer than the " + std::to_string(configuration.max_positions) + " the model can take");
    }
    matrix x(count, configuration.hidden); // (token, hidden)
    for (index_t t = 0; t < count; ++t) {
        index_t const id = tokens[static_cast<std::size_t>(t)];
        if (id < 0 || id >= configuration.vocabulary) {
            throw error("token " + std::to_string(t), "has id " + std::to_string(id) + ", outside the vocabulary of " +
                                                          std::to_string(configuration.vocabulary));
        }
        x.row(t) = embeddings.weight_row(id);
        if (position_embeddings.size() > 0) {
            x.row(t) += position_embeddings.row(rows.start + t % length + 2);
        }
    }
    return x;
}

DETENT_INLINE matrix decoder::logits(matrix_view hidden, executor_ref executor) const {
    matrix const x = final_norm.forward(hidden, executor); // (token, hidden)
    return (lm_head ? *lm_head : embeddings).forward(x, executor);
}

DETENT_INLINE matrix decoder::forward(std::span<nn::token_id const> tokens, index_t sequences,
                                      executor_ref executor) const {
    nn::token_rows const rows{.sequences = sequences};
    matrix x = embed(tokens, rows);
    for (auto const& b : blocks) {
        x = b.forward(std::move(x), rows, executor);
    }
    return logits(x, executor);
}

DETENT_INLINE matrix decoder::hidden(std::span<nn::token_id const> tokens, kv_cache& cache,
                                     executor_ref executor) const {
    expect_valid(!tokens.empty(), "tokens", "are none");
    nn::token_rows const rows{.start = cache.size()};
    if (cache.size() + std::ssize(tokens) > cache.capacity()) {
        throw error("sequence of " + std::to_string(cache.size() + std::ssize(tokens)) + " tokens",
                    "is longer than the " + std::to_string(cache.capacity()) + " the cache has room for");
    }
    matrix x = embed(tokens, rows);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        x = blocks[i].forward(std::move(x), rows, executor, &cache.layer(static_cast<index_t>(i)));
    }
    return x;
}

DETENT_INLINE matrix decoder::forward(std::span<nn::token_id const> tokens, kv_cache& cache,
                                      executor_ref executor) const {
    return logits(hidden(tokens, cache, executor).bottomRows(1), executor);
}

} // namespace detent::inline DETENT_ABI
