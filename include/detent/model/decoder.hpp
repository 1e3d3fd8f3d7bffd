// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/linear.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

/// A language model that predicts the next token from all before it.
struct decoder {
    model_configuration configuration;
    std::string prefix;         ///< of the names of all tensors but lm_head's, such as "model."
    linear_layer embeddings;    ///< (vocabulary, hidden), whose rows are the tokens'
    matrix position_embeddings; ///< (position + 2, hidden), OPT only: its checkpoints start at row 2
    std::vector<block> blocks;
    norm_layer final_norm;
    std::optional<linear_layer> lm_head; ///< none where the embeddings serve as its weight

    /// The hidden state before the first block, (token, hidden), of sequences stacked as `rows` says.
    /// Throws `error` when a token is outside the vocabulary or a sequence too long for the model.
    matrix embed(std::span<nn::token_id const> tokens, nn::token_rows rows) const;

    /// The logits, (token, vocabulary), of hidden states after the last block, (token, hidden).
    matrix logits(matrix_view hidden, executor_ref executor = {}) const;

    /// The logits, (token, vocabulary), of `sequences` token sequences of equal length, one after the other in
    /// `tokens`. Throws like `embed`.
    matrix forward(std::span<nn::token_id const> tokens, index_t sequences = 1, executor_ref executor = {}) const;

    /// The hidden state after the last block, (token, hidden), of the `tokens` that continue the sequence in `cache`;
    /// the cache then holds them too. Throws like `embed`, and where the cache has no room.
    matrix hidden(std::span<nn::token_id const> tokens, kv_cache& cache, executor_ref executor = {}) const;

    /// The logits, (1, vocabulary), after the last of the `tokens` that continue the sequence in `cache`; the cache
    /// then holds them too. Throws like `embed`, and where the cache has no room.
    matrix forward(std::span<nn::token_id const> tokens, kv_cache& cache, executor_ref executor = {}) const;
};

/// Where the weights of a decoder come from; both throw `error` when there is no such tensor or its shape is another.
/// `tensor` answers a whole tensor, a vector as one column; `linear` a layer of shape (out, in).
template <class S>
concept WeightSource = requires(S& source, std::string const& name, extents shape, bool biased) {
    { source.tensor(name, shape) } -> std::convertible_to<matrix>;
    { source.linear(name, shape, biased) } -> std::convertible_to<linear_layer>;
};

/// Builds the decoder that `configuration` describes, asking `source` for every weight by its Hugging Face name after
/// `prefix`. Throws what `source` throws.
template <WeightSource Source>
decoder assemble_decoder(model_configuration const& configuration, std::string const& prefix, Source& source) {
    auto const& c = configuration;
    bool const llama = c.family == model_family::llama;
    index_t const queries = c.heads.heads * c.heads.head_dim;
    index_t const keys = c.heads.kv_heads * c.heads.head_dim;
    auto const norm = [&](std::string const& name) {
        norm_layer layer{.name = name,
                         .type = llama ? norm_layer::kind::rms : norm_layer::kind::layer,
                         .weight = source.tensor(name + ".weight", {c.hidden, 1}),
                         .bias = {},
                         .eps = c.norm_eps};
        if (!llama) {
            layer.bias = source.tensor(name + ".bias", {c.hidden, 1});
        }
        return layer;
    };

    decoder model;
    model.configuration = c;
    model.prefix = prefix;
    model.embeddings = source.linear(prefix + "embed_tokens", {c.vocabulary, c.hidden}, false);
    if (!llama) {
        model.position_embeddings = source.tensor(prefix + "embed_positions.weight", {c.max_positions + 2, c.hidden});
    }
    for (index_t i = 0; i < c.layers; ++i) {
        std::string const layer = prefix + "layers." + std::to_string(i) + ".";
        std::string const attention = layer + "self_attn.";
        std::string const mlp = llama ? layer + "mlp." : layer;
        model.blocks.push_back(
            {.attention_norm = norm(layer + (llama ? "input_layernorm" : "self_attn_layer_norm")),
             .query = source.linear(attention + "q_proj", {queries, c.hidden}, c.qkv_bias),
             .key = source.linear(attention + "k_proj", {keys, c.hidden}, c.qkv_bias),
             .value = source.linear(attention + "v_proj", {keys, c.hidden}, c.qkv_bias),
             .output = source.linear(attention + (llama ? "o_proj" : "out_proj"), {c.hidden, queries}, c.output_bias),
             .mlp_norm = norm(layer + (llama ? "post_attention_layernorm" : "final_layer_norm")),
             .gate = {},
             .up = source.linear(mlp + (llama ? "up_proj" : "fc1"), {c.intermediate, c.hidden}, c.mlp_bias),
             .down = source.linear(mlp + (llama ? "down_proj" : "fc2"), {c.hidden, c.intermediate}, c.mlp_bias),
             .heads = c.heads,
             .activation = c.activation,
             .rope = {}});
        if (llama) {
            model.blocks.back().gate = source.linear(mlp + "gate_proj", {c.intermediate, c.hidden}, c.mlp_bias);
        }
    }
    if (llama) { // last, when the weights have shown that the sizes are true
        auto const rope = std::make_shared<nn::rope_table const>(c.heads.head_dim, c.rope_theta, c.max_positions);
        for (auto& b : model.blocks) {
            b.rope = rope;
        }
    }
    model.final_norm = norm(prefix + (llama ? "norm" : "final_layer_norm"));
    if (!c.tied_embeddings) {
        model.lm_head = source.linear("lm_head", {c.vocabulary, c.hidden}, false);
    }
    return model;
}

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/decoder.ipp" // IWYU pragma: export
#endif
