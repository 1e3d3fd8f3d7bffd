// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
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
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE matrix decoder::embed(std::span<nn::token_id const> tokens, nn::token_rows rows,
                                    executor_ref executor) const {
    auto const& c = configuration;
    auto const count = static_cast<index_t>(tokens.size());
    index_t const length = rows.length(count);
    if (rows.start + length > c.max_positions && !c.any_length) {
        throw error("sequence of " + std::to_string(rows.start + length) + " tokens",
                    "is longer than the " + std::to_string(c.max_positions) + " the model can take");
    }
    matrix x(count, c.embedding_width); // (token, embedding_width)
    for (index_t t = 0; t < count; ++t) {
        index_t const id = tokens[static_cast<std::size_t>(t)];
        if (id < 0 || id >= c.vocabulary) {
            throw error("token " + std::to_string(t),
                        "has id " + std::to_string(id) + ", outside the vocabulary of " + std::to_string(c.vocabulary));
        }
        x.row(t) = embeddings.weight_row(id);
    }
    if (project_in) {
        x = project_in->forward(x, executor);
    }
    if (c.embedding_multiplier != 1) {
        x *= static_cast<float>(c.embedding_multiplier);
    }
    for (index_t t = 0; c.learned_positions && t < count; ++t) {
        x.row(t) += position_embeddings.row(rows.start + t % length + c.position_offset);
    }
    return embedding_norm ? embedding_norm->forward(x, executor) : x;
}

DETENT_INLINE matrix decoder::head_input(matrix_view hidden, executor_ref executor) const {
    matrix x = final_norm ? final_norm->forward(hidden, executor) : matrix(hidden);
    return project_out ? project_out->forward(x, executor) : x;
}

DETENT_INLINE matrix decoder::logits(matrix_view hidden, executor_ref executor) const {
    matrix y = head().forward(head_input(hidden, executor), executor); // (token, vocabulary)
    auto const& c = configuration;
    if (c.logit_multiplier != 1) {
        y *= static_cast<float>(c.logit_multiplier);
    }
    if (c.logit_cap != 0) {
        auto const cap = static_cast<float>(c.logit_cap);
        y = (cap * (y.array() / cap).tanh()).matrix();
    }
    return y;
}

DETENT_INLINE matrix decoder::forward(std::span<nn::token_id const> tokens, index_t sequences,
                                      executor_ref executor) const {
    nn::token_rows const rows{.sequences = sequences};
    matrix x = embed(tokens, rows, executor);
    for (auto const& b : blocks) {
        x = detent::forward(b, x, rows, executor);
    }
    return logits(x, executor);
}

/// Whether keys of a sequence of `before` tokens serve in one of `now`.
DETENT_INLINE bool keeps_rotations(model_configuration const& c, index_t before, index_t now) {
    return std::ranges::all_of(c.layers, [&](layer_configuration const& layer) {
        return !layer.rotary || nn::same_frequencies(*layer.rotary, before, now);
    });
}

DETENT_INLINE matrix decoder::hidden(std::span<nn::token_id const> tokens, kv_cache& cache,
                                     executor_ref executor) const {
    expect_valid(!tokens.empty(), "tokens", "are none");
    index_t const length = cache.size() + std::ssize(tokens);
    if (length > cache.capacity()) {
        throw error("sequence of " + std::to_string(length) + " tokens",
                    "is longer than the " + std::to_string(cache.capacity()) + " the cache has room for");
    }
    if (cache.size() > 0 && !keeps_rotations(configuration, cache.rotated_length(), length)) {
        std::vector<nn::token_id> all = cache.tokens();
        all.insert(all.end(), tokens.begin(), tokens.end());
        cache.truncate(0);
        return hidden(all, cache, executor).bottomRows(std::ssize(tokens));
    }
    nn::token_rows const rows{.start = cache.size()};
    matrix x = embed(tokens, rows, executor);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        x = detent::forward(blocks[i], x, rows, executor, &cache.layer(static_cast<index_t>(i)));
    }
    cache.note(tokens);
    return x;
}

DETENT_INLINE matrix decoder::forward(std::span<nn::token_id const> tokens, kv_cache& cache,
                                      executor_ref executor) const {
    return logits(hidden(tokens, cache, executor).bottomRows(1), executor);
}

} // namespace detent::inline DETENT_ABI
