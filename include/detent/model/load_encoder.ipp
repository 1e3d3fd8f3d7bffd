// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/encoder.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_encoder.hpp"

namespace detent::inline DETENT_ABI {

/// Reads the parts of encoders from a checkpoint whose `config.json` says `c`. Throws like `checkpoint_weights`.
class encoder_weights {
public:
    encoder_weights(checkpoint_weights const& source, encoder_configuration const& c) : source_(source), c_(c) {}

    /// Query, key and value.
    using projections = std::array<linear_layer, 3>;

    /// Three layers of these names.
    projections separate(std::string const& query, std::string const& key, std::string const& value) const {
        extents const shape{c_.hidden, c_.hidden};
        return {source_.linear(query, shape, c_.qkv_bias), source_.linear(key, shape, c_.qkv_bias),
                source_.linear(value, shape, c_.qkv_bias)};
    }

    /// PyTorch's `in_proj_weight` and `in_proj_bias` after `prefix`: the rows of query, key and value one below the
    /// other. The layers are called q_proj, k_proj and v_proj after `prefix`.
    projections stacked(std::string const& prefix) const {
        matrix const weight = source_.tensor(prefix + "in_proj_weight", {3 * c_.hidden, c_.hidden});
        float_vector const bias = source_.tensor(prefix + "in_proj_bias", {3 * c_.hidden, 1});
        projections parts;
        for (index_t i = 0; i < 3; ++i) {
            parts[static_cast<std::size_t>(i)] = {.name = prefix + "qkv"[i] + "_proj",
                                                  .weight = matrix(weight.middleRows(i * c_.hidden, c_.hidden)),
                                                  .bias = bias.segment(i * c_.hidden, c_.hidden)};
        }
        return parts;
    }

    norm_layer norm(std::string const& name) const {
        return {.name = name,
                .type = norm_layer::kind::layer,
                .weight = source_.tensor(name + ".weight", {c_.hidden, 1}),
                .bias = source_.tensor(name + ".bias", {c_.hidden, 1}),
                .eps = c_.norm_eps};
    }

    /// How the other layers of a block are called.
    struct block_names {
        std::string output, attention_norm, up, down, mlp_norm;
    };

    /// A block with all its names after `prefix`.
    block read_block(std::string const& prefix, projections qkv, block_names const& names) const {
        return {.attention_norm = norm(prefix + names.attention_norm),
                .query = std::move(qkv[0]),
                .key = std::move(qkv[1]),
                .value = std::move(qkv[2]),
                .output = source_.linear(prefix + names.output, {c_.hidden, c_.hidden}, true),
                .mlp_norm = norm(prefix + names.mlp_norm),
                .gate = {},
                .up = source_.linear(prefix + names.up, {c_.intermediate, c_.hidden}, true),
                .down = source_.linear(prefix + names.down, {c_.hidden, c_.intermediate}, true),
                .heads = c_.heads,
                .activation = c_.activation,
                .rope = {},
                .norms = c_.norms,
                .mask = nn::attention_mask::bidirectional};
    }

private:
    checkpoint_weights const& source_;
    encoder_configuration const& c_;
};

DETENT_INLINE text_encoder load_text_encoder(std::filesystem::path const& directory) {
    auto const file = directory / "config.json";
    text_encoder model;
    auto const& c = model.configuration = parse_text_encoder(io::read_json(file), file.string());
    io::checkpoint const checkpoint(directory);
    checkpoint_weights const source(checkpoint, read_packed_layout(file));
    encoder_weights const weights(source, c);

    model.prefix = find_prefix(checkpoint, {"", "bert."}, "embeddings.word_embeddings.weight");
    std::string const embeddings = model.prefix + "embeddings.";
    model.word_embeddings = source.tensor(embeddings + "word_embeddings.weight", {c.vocabulary, c.hidden});
    model.position_embeddings = source.tensor(embeddings + "position_embeddings.weight", {c.max_positions, c.hidden});
    model.token_type_embeddings = source.tensor(embeddings + "token_type_embeddings.weight", {c.token_types, c.hidden});
    model.embedding_norm = weights.norm(embeddings + "LayerNorm");
    for (index_t i = 0; i < c.layers; ++i) {
        std::string const layer = model.prefix + "encoder.layer." + std::to_string(i) + ".";
        std::string const attention = layer + "attention.self.";
        model.blocks.push_back(
            weights.read_block(layer, weights.separate(attention + "query", attention + "key", attention + "value"),
                               {.output = "attention.output.dense",
                                .attention_norm = "attention.output.LayerNorm",
                                .up = "intermediate.dense",
                                .down = "output.dense",
                                .mlp_norm = "output.LayerNorm"}));
    }
    return model;
}

DETENT_INLINE image_encoder load_image_encoder(std::filesystem::path const& directory) {
    auto const file = directory / "config.json";
    image_encoder model;
    auto& c = model.configuration = parse_image_encoder(io::read_json(file), file.string());
    bool const vit = c.names == image_encoder_names::vit;
    auto const preprocessor = directory / "preprocessor_config.json";
    if (std::error_code ignored; vit && std::filesystem::exists(preprocessor, ignored)) {
        parse_preprocessor(io::read_json(preprocessor), preprocessor.string(), c);
    }
    io::checkpoint const checkpoint(directory);
    checkpoint_weights const source(checkpoint, read_packed_layout(file));
    encoder_weights const weights(source, c);

    model.prefix = vit ? find_prefix(checkpoint, {"vit.", ""}, "embeddings.cls_token") : "";
    std::string const embeddings = vit ? model.prefix + "embeddings." : "";
    std::string const patches = embeddings + (vit ? "patch_embeddings.projection" : "patch_embed.proj");
    std::string const positions = embeddings + (vit ? "position_embeddings" : "pos_embed");
    index_t const numbers = c.channels * c.patch_size * c.patch_size; // of a patch
    model.class_token = source.tensor(embeddings + "cls_token", {1, c.hidden}, {1, 1, c.hidden});
    model.position_embeddings = source.tensor(positions, {1 + c.patches(), c.hidden}, {1, 1 + c.patches(), c.hidden});
    model.patch_embedding = {.name = patches,
                             .weight = source.tensor(patches + ".weight", {c.hidden, numbers},
                                                     {c.hidden, c.channels, c.patch_size, c.patch_size}),
                             .bias = source.tensor(patches + ".bias", {c.hidden, 1})};
    for (index_t i = 0; i < c.layers; ++i) {
        std::string const layer =
            model.prefix + (vit ? "encoder.layer." : "transformer.layers.") + std::to_string(i) + ".";
        if (vit) {
            std::string const attention = layer + "attention.attention.";
            model.blocks.push_back(
                weights.read_block(layer, weights.separate(attention + "query", attention + "key", attention + "value"),
                                   {.output = "attention.output.dense",
                                    .attention_norm = "layernorm_before",
                                    .up = "intermediate.dense",
                                    .down = "output.dense",
                                    .mlp_norm = "layernorm_after"}));
        } else {
            model.blocks.push_back(weights.read_block(layer, weights.stacked(layer + "self_attn."),
                                                      {.output = "self_attn.out_proj",
                                                       .attention_norm = "norm1",
                                                       .up = "linear1",
                                                       .down = "linear2",
                                                       .mlp_norm = "norm2"}));
        }
    }
    if (!vit && checkpoint.contains("transformer.norm.weight")) {
        throw error(io::subject_of(checkpoint.path(), "transformer.norm.weight"),
                    "is there, but a norm between blocks and mlp_head is not supported");
    }
    model.final_norm = weights.norm(vit ? model.prefix + "layernorm" : "mlp_head.0");
    model.classifier = source.linear(vit ? "classifier" : "mlp_head.1", {c.classes, c.hidden}, true);
    return model;
}

} // namespace detent::inline DETENT_ABI
