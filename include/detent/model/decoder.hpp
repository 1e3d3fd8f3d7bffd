// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

/// A language model that predicts the next token from all before it.
struct decoder {
    model_configuration configuration;
    std::string prefix;         ///< of the names of all tensors but the head's, such as "model."
    linear_layer embeddings;    ///< (vocabulary, embedding_width), whose rows are the tokens'
    matrix position_embeddings; ///< (position + position_offset, hidden), where positions are learned
    std::optional<linear_layer> project_in, project_out; ///< between the width of embeddings and that of hidden states
    std::optional<norm_layer> embedding_norm;
    std::vector<block> blocks;
    std::optional<norm_layer> final_norm;
    std::optional<linear_layer> lm_head; ///< none where the embeddings serve as its weight
    std::vector<std::string> warnings;   ///< what is odd about the checkpoint it was loaded from

    /// The hidden state before the first block, (token, hidden), of sequences stacked as `rows` says.
    /// Throws `error` when a token is outside the vocabulary or a sequence too long for the model.
    matrix embed(std::span<nn::token_id const> tokens, nn::token_rows rows, executor_ref executor = {}) const;

    /// What the output head reads, (token, embedding_width), of hidden states after the last block, (token, hidden).
    matrix head_input(matrix_view hidden, executor_ref executor = {}) const;

    /// The logits, (token, vocabulary), of hidden states after the last block, (token, hidden).
    matrix logits(matrix_view hidden, executor_ref executor = {}) const;

    /// The layer that makes logits.
    linear_layer const& head() const { return lm_head ? *lm_head : embeddings; }

    /// The logits, (token, vocabulary), of `sequences` token sequences of equal length, one after the other in
    /// `tokens`. Throws like `embed`.
    matrix forward(std::span<nn::token_id const> tokens, index_t sequences = 1, executor_ref executor = {}) const;

    /// The hidden state after the last block, (token, hidden), of the `tokens` that continue the sequence in `cache`;
    /// the cache then holds them too. Where rotary positions depend on the length of the sequence (LongRoPE beyond its
    /// original context, dynamic NTK beyond its own) and the keys in the cache are of other frequencies, the cache is
    /// emptied and all its tokens are run again, so that the result is that of the whole sequence. Throws like `embed`,
    /// and where the cache has no room.
    matrix hidden(std::span<nn::token_id const> tokens, kv_cache& cache, executor_ref executor = {}) const;

    /// The logits, (1, vocabulary), after the last of the `tokens` that continue the sequence in `cache`; the cache
    /// then holds them too. Throws like `embed`, and where the cache has no room.
    matrix forward(std::span<nn::token_id const> tokens, kv_cache& cache, executor_ref executor = {}) const;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/decoder.ipp" // IWYU pragma: export
#endif
