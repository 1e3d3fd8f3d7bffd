// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>
#include <system_error>

#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/assemble_decoder.hpp"
#include "detent/model/encoder.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_encoder.hpp"

namespace detent::inline DETENT_ABI {

/// The names of a checkpoint's norms are those that the norm `name` has.
DETENT_INLINE void find_norm_names(io::checkpoint const& checkpoint, std::string const& name, tensor_names& names) {
    if (!checkpoint.contains(name + ".weight") && checkpoint.contains(name + ".gamma")) {
        names.norm_weight = "gamma";
        names.norm_bias = "beta";
    }
}

DETENT_INLINE text_encoder load_text_encoder(std::filesystem::path const& directory) {
    auto const file = directory / "config.json";
    text_encoder model;
    auto& c = model.configuration = parse_text_encoder(io::read_json(file), file.string());
    auto& n = c.names;
    io::checkpoint const checkpoint(directory);
    checkpoint_weights source(checkpoint, io::quantization_settings::of(directory));
    model.prefix = find_prefix(checkpoint, n.prefixes, n.embeddings + ".weight");
    find_norm_names(checkpoint, model.prefix + n.embedding_norm, n);
    model_assembly parts(c, model.prefix, source);

    index_t const width = c.embedding_width;
    auto const table = [&](std::string const& name, index_t rows) {
        return source.tensor(model.prefix + name + ".weight", {rows, width});
    };
    model.word_embeddings = table(n.embeddings, c.vocabulary);
    model.position_embeddings = table(n.positions, c.position_offset + c.max_positions);
    if (c.token_types > 0) {
        model.token_type_embeddings = table(token_types_name, c.token_types);
    }
    model.embedding_norm = parts.norm(model.prefix + n.embedding_norm, width);
    if (width != c.hidden) {
        model.project_in = parts.linear(model.prefix + n.project_in, {c.hidden, width}, true);
    }
    for (index_t i = 0; i < std::ssize(c.layers); ++i) {
        model.blocks.push_back(parts.make_block(i));
    }
    finish_blocks(model.blocks, source, model.prefix + n.blocks);
    return model;
}

DETENT_INLINE image_encoder load_image_encoder(std::filesystem::path const& directory) {
    auto const file = directory / "config.json";
    image_encoder model;
    auto& c = model.configuration = parse_image_encoder(io::read_json(file), file.string());
    auto const preprocessor = directory / "preprocessor_config.json";
    if (std::error_code ignored; !c.type.empty() && std::filesystem::exists(preprocessor, ignored)) {
        parse_preprocessor(io::read_json(preprocessor), preprocessor.string(), c);
    }
    auto const& n = c.names;
    io::checkpoint const checkpoint(directory);
    checkpoint_weights source(checkpoint, io::quantization_settings::of(directory));
    auto const& prefix = model.prefix = find_prefix(checkpoint, n.prefixes, c.class_token_name);
    model_assembly parts(c, prefix, source);

    auto const tokens = [&](std::string const& name, index_t count) {
        return source.tensor(prefix + name, {count, c.hidden}, {1, count, c.hidden});
    };
    model.class_token = tokens(c.class_token_name, 1);
    if (c.extra_tokens > 0) {
        model.extra_tokens = tokens(c.extra_tokens_name, c.extra_tokens);
    }
    model.position_embeddings = tokens(n.positions, c.extra_positions ? c.tokens() : 1 + c.patches());
    std::string const patches = prefix + n.embeddings;
    index_t const numbers = c.channels * c.patch_size * c.patch_size; // of a patch
    model.patch_embedding.name = patches;
    model.patch_embedding.weight =
        source.tensor(patches + ".weight", {c.hidden, numbers}, {c.hidden, c.channels, c.patch_size, c.patch_size});
    model.patch_embedding.bias = source.tensor(patches + ".bias", {c.hidden, 1});
    for (index_t i = 0; i < std::ssize(c.layers); ++i) {
        model.blocks.push_back(parts.make_block(i));
    }
    finish_blocks(model.blocks, source, model.prefix + n.blocks);
    if (std::string const between = "transformer.norm.weight"; c.type.empty() && checkpoint.contains(between)) {
        throw error(io::subject_of(checkpoint.path(), between),
                    "is there, but a norm between blocks and mlp_head is not supported");
    }
    model.final_norm = parts.norm(prefix + n.final_norm, c.hidden);
    if (c.readout != image_readout::none) {
        index_t const width = c.readout == image_readout::class_and_patches ? 2 * c.hidden : c.hidden;
        model.classifier = parts.linear(n.head, {c.classes, width}, true);
        if (c.readout == image_readout::two_tokens) {
            model.second_classifier = parts.linear(c.second_head, {c.classes, width}, true);
        }
    }
    return model;
}

} // namespace detent::inline DETENT_ABI
