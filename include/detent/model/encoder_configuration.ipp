// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/index.hpp"
#include "detent/io/json.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/encoder_configuration.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE nn::attention_heads parse_heads(configuration_fields const& fields, std::string const& heads_field,
                                              std::string const& hidden_field, index_t hidden) {
    index_t const heads = fields.size(heads_field);
    if (hidden % heads != 0) {
        throw fields.wrong(heads_field, "is " + std::to_string(heads) + ", which does not divide " + hidden_field +
                                            " " + std::to_string(hidden));
    }
    return {.heads = heads, .kv_heads = heads, .head_dim = hidden / heads};
}

DETENT_INLINE nn::activation parse_activation(configuration_fields const& fields, std::string const& field,
                                              std::string const& missing) {
    std::string const name = fields.text(field, missing);
    if (auto const known = find_activation(name)) {
        return *known;
    }
    throw fields.wrong(field, "is '" + io::printable(name) + "'; supported are " + known_activations);
}

DETENT_INLINE void parse_encoder(configuration_fields const& fields, encoder_configuration& c) {
    c.hidden = fields.size("hidden_size");
    c.layers = fields.size("num_hidden_layers");
    c.intermediate = fields.size("intermediate_size");
    c.heads = parse_heads(fields, "num_attention_heads", "hidden_size", c.hidden);
    c.activation = parse_activation(fields, "hidden_act", "gelu");
    c.norm_eps = static_cast<float>(fields.positive("layer_norm_eps", 1e-12));
}

DETENT_INLINE text_encoder_configuration parse_text_encoder(nlohmann::json const& json, std::string const& file) {
    configuration_fields const fields(json, file);
    if (std::string const type = fields.text("model_type"); type != "bert") {
        throw fields.wrong("model_type",
                           "is '" + io::printable(type) + "'; the only encoder of text supported is bert");
    }
    text_encoder_configuration c;
    parse_encoder(fields, c);
    c.vocabulary = fields.size("vocab_size");
    c.max_positions = fields.size("max_position_embeddings", 512);
    c.token_types = fields.size("type_vocab_size", 2);
    fields.require("is_decoder", false, false);
    if (auto const positions = fields.text("position_embedding_type", "absolute"); positions != "absolute") {
        throw fields.wrong("position_embedding_type",
                           "is '" + io::printable(positions) + "'; only 'absolute' is supported");
    }
    return c;
}

DETENT_INLINE std::vector<float> parse_channels(configuration_fields const& fields, std::string const& field,
                                                index_t channels, bool positive) {
    auto const* list = fields.find(field);
    if (list == nullptr) {
        throw fields.wrong(field, "is missing");
    }
    auto const wrong = [&] {
        return fields.wrong(field, "is " + io::printable(list->dump()) + "; expected " +
                                       (positive ? "a positive number" : "a number") + " for each of the " +
                                       std::to_string(channels) + " channels");
    };
    if (!list->is_array() || static_cast<index_t>(list->size()) != channels) {
        throw wrong();
    }
    std::vector<float> values;
    for (auto const& value : *list) {
        if (!value.is_number() || !std::isfinite(value.get<float>()) || (positive && !(value.get<float>() > 0))) {
            throw wrong();
        }
        values.push_back(value.get<float>());
    }
    return values;
}

DETENT_INLINE image_encoder_configuration parse_image_encoder(nlohmann::json const& json, std::string const& file) {
    configuration_fields const fields(json, file);
    index_t const largest_image = index_t{1} << 16; // the numbers of a patch must fit an index_t
    image_encoder_configuration c;
    if (fields.find("model_type") == nullptr && fields.find("embed_dim") != nullptr) {
        c.names = image_encoder_names::torch;
        c.hidden = fields.size("embed_dim");
        c.layers = fields.size("depth");
        c.intermediate = fields.size("mlp_dim");
        c.heads = parse_heads(fields, "num_heads", "embed_dim", c.hidden);
        c.activation = parse_activation(fields, "activation", "relu");
        c.norm_eps = static_cast<float>(fields.positive("layer_norm_eps", 1e-5));
        c.norms = fields.flag("norm_first", false) ? norm_placement::before : norm_placement::after;
        c.image_size = fields.size("image_size", {}, largest_image);
        c.patch_size = fields.size("patch_size", {}, largest_image);
        c.channels = fields.size("in_channels");
        c.classes = fields.size("num_classes");
        c.pixel_mean = parse_channels(fields, "pixel_mean", c.channels, false);
        c.pixel_std = parse_channels(fields, "pixel_std", c.channels, true);
    } else {
        if (std::string const type = fields.text("model_type"); type != "vit") {
            throw fields.wrong("model_type",
                               "is '" + io::printable(type) + "'; the only encoder of images supported is vit");
        }
        parse_encoder(fields, c);
        c.norms = norm_placement::before;
        c.qkv_bias = fields.flag("qkv_bias", true);
        c.image_size = fields.size("image_size", 224, largest_image);
        c.patch_size = fields.size("patch_size", 16, largest_image);
        c.channels = fields.size("num_channels", 3);
        auto const* labels = fields.find("id2label");
        if (labels != nullptr && !labels->is_object()) {
            throw fields.wrong("id2label", "is not a JSON object");
        }
        if (labels != nullptr && labels->empty()) {
            throw fields.wrong("id2label", "is {}; expected a name for each class");
        }
        c.classes = labels != nullptr ? static_cast<index_t>(labels->size()) : fields.size("num_labels", 2);
    }
    if (c.image_size % c.patch_size != 0) {
        throw fields.wrong("patch_size", "is " + std::to_string(c.patch_size) + ", which does not divide image_size " +
                                             std::to_string(c.image_size));
    }
    return c;
}

DETENT_INLINE void parse_preprocessor(nlohmann::json const& json, std::string const& file,
                                      image_encoder_configuration& c) {
    configuration_fields const fields(json, file);
    fields.require("do_rescale", true, true);
    fields.require("do_normalize", true, true);
    if (double const factor = fields.positive("rescale_factor", 1.0 / 255); std::abs(factor * 255 - 1) > 1e-6) {
        throw fields.wrong("rescale_factor", "is not 1 / 255, which is not supported");
    }
    c.pixel_mean = parse_channels(fields, "image_mean", c.channels, false);
    c.pixel_std = parse_channels(fields, "image_std", c.channels, true);
}

} // namespace detent::inline DETENT_ABI
