// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/encoder.hpp"
#include "detent/model/save.hpp"
#include "detent/model/save_encoder.hpp"

namespace detent::inline DETENT_ABI {

/// Adds the blocks of an encoder.
DETENT_INLINE void add_blocks(model_tensors& all, std::vector<block> const& blocks, std::string const& prefix,
                              model_configuration const& c) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        all.add(blocks[i], prefix + c.names.blocks + std::to_string(i) + ".", c);
    }
}

DETENT_INLINE model_tensors tensors_of(text_encoder const& model) {
    auto const& c = model.configuration;
    model_tensors all;
    all.add(model.prefix + c.names.embeddings + ".weight", model.word_embeddings);
    all.add(model.prefix + c.names.positions + ".weight", model.position_embeddings);
    if (c.token_types > 0) {
        all.add(model.prefix + token_types_name + ".weight", model.token_type_embeddings);
    }
    all.add(model.embedding_norm, c);
    if (model.project_in) {
        all.add(*model.project_in, true);
    }
    add_blocks(all, model.blocks, model.prefix, c);
    return all;
}

DETENT_INLINE model_tensors tensors_of(image_encoder const& model) {
    auto const& c = model.configuration;
    model_tensors all;
    auto const& patches = model.patch_embedding;
    auto const* weight = std::get_if<matrix>(&patches.weight);
    if (weight == nullptr || patches.input) {
        throw error("layer '" + patches.name + "'", "is quantized, which cannot be saved");
    }
    all.add(patches.name + ".weight", *weight);
    auto const& bias = patches.bias;
    all.floats[patches.name + ".bias"] = {{bias.data(), static_cast<std::size_t>(bias.size())}, {bias.size()}};
    all.add(model.prefix + c.class_token_name, model.class_token);
    if (c.extra_tokens > 0) {
        all.add(model.prefix + c.extra_tokens_name, model.extra_tokens);
    }
    all.add(model.prefix + c.names.positions, model.position_embeddings);
    add_blocks(all, model.blocks, model.prefix, c);
    all.add(model.final_norm, c);
    for (auto const* head : {&model.classifier, &model.second_classifier}) {
        if (*head) {
            all.add(**head, true);
        }
    }
    return all;
}

DETENT_INLINE save_plan save_encoder(text_encoder const& model, std::filesystem::path const& source,
                                     std::filesystem::path const& directory, std::string const& description,
                                     std::optional<io::packed_layout> wanted) {
    return save_model(tensors_of(model), source, directory, description, wanted, [](nlohmann::json&) {});
}

DETENT_INLINE save_plan save_encoder(image_encoder const& model, std::filesystem::path const& source,
                                     std::filesystem::path const& directory, std::string const& description,
                                     std::optional<io::packed_layout> wanted) {
    return save_model(tensors_of(model), source, directory, description, wanted, [](nlohmann::json&) {});
}

} // namespace detent::inline DETENT_ABI
