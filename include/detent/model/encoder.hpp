// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

/// Sentences of equal length, as blocks take them.
struct sentence_batch {
    std::vector<index_t> positions;   ///< of the sentences among all
    std::vector<nn::token_id> tokens; ///< one sentence after the other
    index_t sentences() const { return std::ssize(positions); }
};

/// Enough tokens for products at full speed, few enough for little memory.
inline constexpr index_t tokens_at_once = 4096;

/// Puts sentences of equal length together, in order, up to `most_tokens` tokens or a single longer sentence. Throws
/// `error` where a sentence has no tokens.
std::vector<sentence_batch> batch_sentences(std::span<std::vector<nn::token_id> const> sentences,
                                            index_t most_tokens = tokens_at_once);

/// What a sentence means as one vector: the mean of the hidden states (token, hidden) of each of `sequences` sequences
/// of equal length, scaled to the length 1, (sequence, hidden).
matrix pool_sentences(matrix_view hidden, index_t sequences);

/// A model of the BERT family: hidden states of tokens that all see each other.
struct text_encoder {
    text_encoder_configuration configuration;
    std::string prefix;           ///< of the names of all tensors, such as "bert."
    matrix word_embeddings;       ///< (vocabulary, hidden)
    matrix position_embeddings;   ///< (position, hidden)
    matrix token_type_embeddings; ///< (type, hidden)
    norm_layer embedding_norm;
    std::vector<block> blocks;

    /// The hidden state before the first block, (token, hidden), of `sequences` token sequences of equal length, one
    /// after the other in `tokens`. `types` says to which part of its sequence each token belongs; if empty, all to the
    /// first. Throws `error` when a token or type is outside the vocabulary or a sequence too long for the model.
    matrix embed(std::span<nn::token_id const> tokens, index_t sequences = 1, executor_ref executor = {},
                 std::span<nn::token_id const> types = {}) const;

    /// The hidden state after the last block, (token, hidden). See `embed` for the arguments; throws like it.
    matrix forward(std::span<nn::token_id const> tokens, index_t sequences = 1, executor_ref executor = {},
                   std::span<nn::token_id const> types = {}) const;

    /// `pool_sentences` of sentences of any lengths, (sentence, hidden). Throws like `embed` and `batch_sentences`.
    matrix sentence_embeddings(std::span<std::vector<nn::token_id> const> sentences, executor_ref executor = {}) const;
};

/// A vision transformer that tells to which class an image belongs: patches of the image behind a class token, from
/// whose last hidden state the class is read. Images are (image, channel * row * column).
struct image_encoder {
    image_encoder_configuration configuration;
    std::string prefix;           ///< of the names of all tensors but the classifier's, such as "vit."
    linear_layer patch_embedding; ///< (hidden, channel * row * column), of a patch
    matrix class_token;           ///< (1, hidden)
    matrix position_embeddings;   ///< (1 + patch, hidden), of the class token first
    std::vector<block> blocks;
    norm_layer final_norm;
    linear_layer classifier; ///< (class, hidden)

    /// Images as the model takes them, (image, channel * row * column), of bytes in the order (image, row, column,
    /// channel). Throws `error` when these are no whole images or the model does not say how to normalize pixels.
    matrix normalize(std::span<std::uint8_t const> bytes) const;

    /// The hidden state before the first block, (image * (1 + patch), hidden), of normalized images.
    matrix embed(matrix_view images, executor_ref executor = {}) const;

    /// The hidden state after the last block, (image * (1 + patch), hidden), of one or more normalized images.
    matrix forward(matrix_view images, executor_ref executor = {}) const;

    /// The logits, (image, class), of hidden states after the last block, (image * (1 + patch), hidden).
    matrix logits(matrix_view hidden, executor_ref executor = {}) const;

private:
    /// The patches, (image * patch, channel * row * column): from left to right, then down.
    matrix cut(matrix_view images) const;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/encoder.ipp" // IWYU pragma: export
#endif
