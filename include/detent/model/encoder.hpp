// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
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

/// The table of the types of tokens in all checkpoints that have one, after the prefix and without `.weight`.
inline constexpr char const* token_types_name = "embeddings.token_type_embeddings";

/// An encoder of text such as BERT: hidden states of tokens that all see each other.
struct text_encoder {
    text_encoder_configuration configuration;
    std::string prefix;           ///< of the names of all tensors, such as "bert."
    matrix word_embeddings;       ///< (vocabulary, embedding_width)
    matrix position_embeddings;   ///< (position_offset + position, embedding_width)
    matrix token_type_embeddings; ///< (type, embedding_width), or none
    norm_layer embedding_norm;
    std::optional<linear_layer> project_in; ///< from the width of embeddings to that of hidden states (ELECTRA)
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

private:
    /// The row of `position_embeddings` for each token of sequences of `length` tokens.
    std::vector<index_t> position_rows(std::span<nn::token_id const> tokens, index_t length) const;
};

/// A vision transformer: hidden states of a class token, of extra tokens in some families, and of the patches of an
/// image, from which others tell its class. Images are (image, channel * row * column), all of one size: tables of
/// positions are not stretched to others.
struct image_encoder {
    image_encoder_configuration configuration;
    std::string prefix;           ///< of the names of all tensors but the classifier's, such as "vit."
    linear_layer patch_embedding; ///< (hidden, channel * row * column), of a patch
    matrix class_token;           ///< (1, hidden)
    matrix extra_tokens;          ///< (extra token, hidden), or none
    matrix position_embeddings;   ///< (1 + patch, hidden), or of all tokens, of the class token first
    std::vector<block> blocks;
    norm_layer final_norm;
    std::optional<linear_layer> classifier;        ///< (class, what `configuration.readout` says)
    std::optional<linear_layer> second_classifier; ///< of the token behind the class token

    /// Images as the model takes them, (image, channel * row * column), of bytes in the order (image, row, column,
    /// channel). Throws `error` when these are no whole images or the model does not say how to normalize pixels.
    matrix normalize(std::span<std::uint8_t const> bytes) const;

    /// The hidden state before the first block, (image * token, hidden), of normalized images. Throws `error` when
    /// these are of another size than the model's.
    matrix embed(matrix_view images, executor_ref executor = {}) const;

    /// The hidden state after the last block, (image * token, hidden), of one or more normalized images. Throws like
    /// `embed`.
    matrix forward(matrix_view images, executor_ref executor = {}) const;

    /// The hidden state behind the last norm, which is what models without classes make, of that after the last block;
    /// both are (image * token, hidden).
    matrix normalized(matrix_view hidden, executor_ref executor = {}) const;

    /// The logits, (image, class), of hidden states after the last block, (image * token, hidden). Throws `error` where
    /// the model has no classes.
    matrix logits(matrix_view hidden, executor_ref executor = {}) const;

private:
    /// The patches, (image * patch, channel * row * column): from left to right, then down.
    matrix cut(matrix_view images) const;

    /// State `token` of each image, (image, hidden), among all, (image * token, hidden).
    matrix states_of(matrix_view hidden, index_t token) const;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/encoder.ipp" // IWYU pragma: export
#endif
