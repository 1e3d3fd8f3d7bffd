// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/io/json.hpp"
#include "detent/model/configuration.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE configuration_fields::configuration_fields(nlohmann::json const& json, std::string file)
    : json_(json), file_(std::move(file)) {
    if (!json.is_object()) {
        throw error(file_, "is not a JSON object");
    }
}

DETENT_INLINE error configuration_fields::wrong(std::string const& field, std::string const& problem) const {
    return error(file_ + ", field '" + field + "'", problem);
}

DETENT_INLINE nlohmann::json const* configuration_fields::find(std::string const& field) const {
    auto const found = json_.find(field);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
}

DETENT_INLINE index_t configuration_fields::size(std::string const& field, std::optional<index_t> missing,
                                                 index_t most) const {
    auto const* value = find(field);
    if (value == nullptr) {
        return missing ? *missing : throw wrong(field, "is missing");
    }
    if (!value->is_number_integer() || value->get<double>() < 1 || value->get<double>() > static_cast<double>(most)) {
        throw wrong(field,
                    "is " + io::printable(value->dump()) + "; expected an integer from 1 to " + std::to_string(most));
    }
    return value->get<index_t>();
}

DETENT_INLINE double configuration_fields::positive(std::string const& field, double missing) const {
    auto const* value = find(field);
    if (value == nullptr) {
        return missing;
    }
    if (!value->is_number() || !(value->get<float>() > 0) || !std::isfinite(value->get<float>())) {
        throw wrong(field, "is " + io::printable(value->dump()) + "; expected a positive number");
    }
    return value->get<double>();
}

DETENT_INLINE bool configuration_fields::flag(std::string const& field, bool missing) const {
    auto const* value = find(field);
    if (value != nullptr && !value->is_boolean()) {
        throw wrong(field, "is " + io::printable(value->dump()) + "; expected true or false");
    }
    return value == nullptr ? missing : value->get<bool>();
}

DETENT_INLINE std::string configuration_fields::text(std::string const& field,
                                                     std::optional<std::string> missing) const {
    auto const* value = find(field);
    if (value == nullptr) {
        return missing ? *missing : throw wrong(field, "is missing");
    }
    if (!value->is_string()) {
        throw wrong(field, "is " + io::printable(value->dump()) + "; expected a string");
    }
    return value->get<std::string>();
}

DETENT_INLINE void configuration_fields::require(std::string const& field, bool supported, bool missing) const {
    if (flag(field, missing) != supported) {
        throw wrong(field, std::string("is ") + (supported ? "false" : "true") + ", which is not supported");
    }
}

DETENT_INLINE std::vector<index_t> configuration_fields::token_ids(std::string const& field, index_t vocabulary) const {
    std::vector<index_t> ids;
    if (auto const* value = find(field); value != nullptr) {
        auto const list = value->is_array() ? *value : nlohmann::json::array({*value});
        for (auto const& id : list) {
            if (!id.is_number_integer() || id.get<double>() < 0 ||
                id.get<double>() >= static_cast<double>(vocabulary)) {
                throw wrong(field, "holds " + io::printable(id.dump()) + ", not a token id below vocab_size");
            }
            ids.push_back(id.get<index_t>());
        }
    }
    return ids;
}

DETENT_INLINE std::optional<nn::activation> find_activation(std::string const& name) {
    if (name == "relu") {
        return nn::activation::relu;
    }
    if (name == "gelu") {
        return nn::activation::gelu;
    }
    if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") {
        return nn::activation::gelu_tanh;
    }
    return std::nullopt;
}

DETENT_INLINE double parse_rope_theta(configuration_fields const& fields, nlohmann::json const& json,
                                      std::string const& file) {
    double theta = fields.positive("rope_theta", 10000.0);
    for (std::string const name : {"rope_scaling", "rope_parameters"}) {
        if (fields.find(name) == nullptr) {
            continue;
        }
        configuration_fields const rope(json.at(name), file + ", field '" + name + "'");
        for (std::string const key : {"rope_type", "type"}) {
            if (auto const type = rope.text(key, "default"); type != "default") {
                throw rope.wrong(key, "is '" + io::printable(type) + "'; only 'default' is supported");
            }
        }
        if (rope.positive("partial_rotary_factor", 1.0) != 1.0) {
            throw rope.wrong("partial_rotary_factor", "is not 1, which is not supported");
        }
        theta = rope.positive("rope_theta", theta);
    }
    if (fields.positive("partial_rotary_factor", 1.0) != 1.0) {
        throw fields.wrong("partial_rotary_factor", "is not 1, which is not supported");
    }
    return theta;
}

DETENT_INLINE void reject_sliding_window(configuration_fields const& fields, nlohmann::json const& json,
                                         std::string const& model_type, index_t max_positions) {
    // In the Hugging Face classes LLaMA has no window, Qwen2 has one when told so, Mistral unless told otherwise: there
    // a missing window is 4096 tokens, only null is none.
    bool const slides = model_type == "qwen2" ? fields.flag("use_sliding_window", false)
                                              : model_type == "mistral" && (!json.contains("sliding_window") ||
                                                                            !json["sliding_window"].is_null());
    if (slides) {
        if (index_t const window = fields.size("sliding_window", 4096); window < max_positions) {
            throw fields.wrong("sliding_window", "is " + std::to_string(window) +
                                                     ", less than max_position_embeddings, which is not supported");
        }
    }
}

DETENT_INLINE model_configuration parse_configuration(nlohmann::json const& json, std::string const& file) {
    configuration_fields const fields(json, file);
    std::string const type = fields.text("model_type");
    bool const llama = type == "llama" || type == "mistral" || type == "qwen2";
    if (!llama && type != "opt") {
        throw fields.wrong("model_type",
                           "is '" + io::printable(type) + "'; supported are llama, mistral, qwen2 and opt");
    }

    model_configuration c;
    c.family = llama ? model_family::llama : model_family::opt;
    c.vocabulary = fields.size("vocab_size");
    c.hidden = fields.size("hidden_size");
    c.layers = fields.size("num_hidden_layers");
    c.heads.heads = fields.size("num_attention_heads");
    c.tied_embeddings = fields.flag("tie_word_embeddings", !llama);
    c.end_of_text = fields.token_ids("eos_token_id", c.vocabulary);

    // A head without an explicit size is an equal share of the hidden features.
    bool const explicit_head = llama && fields.find("head_dim") != nullptr;
    if (!explicit_head && c.hidden % c.heads.heads != 0) {
        throw fields.wrong("num_attention_heads", "is " + std::to_string(c.heads.heads) +
                                                      ", which does not divide hidden_size " +
                                                      std::to_string(c.hidden));
    }
    c.heads.head_dim =
        explicit_head ? fields.size("head_dim", {}, (index_t{1} << 24) / c.heads.heads) : c.hidden / c.heads.heads;

    std::string const activation = fields.text(llama ? "hidden_act" : "activation_function", llama ? "silu" : "relu");
    auto const unknown_activation = [&](char const* supported) {
        return fields.wrong(llama ? "hidden_act" : "activation_function",
                            "is '" + io::printable(activation) + "'; supported are " + supported);
    };
    if (llama) {
        c.intermediate = fields.size("intermediate_size");
        c.heads.kv_heads = fields.size("num_key_value_heads", type == "mistral" ? 8 : c.heads.heads);
        // Sines and cosines of all positions are kept, hence the limit.
        c.max_positions = fields.size("max_position_embeddings",
                                      type == "mistral" ? 131072
                                      : type == "qwen2" ? 32768
                                                        : 2048,
                                      index_t{1} << 20);
        c.norm_eps = static_cast<float>(fields.positive("rms_norm_eps", 1e-6));
        c.rope_theta = parse_rope_theta(fields, json, file);
        c.qkv_bias = type == "qwen2" || (type == "llama" && fields.flag("attention_bias", false));
        c.output_bias = type == "llama" && c.qkv_bias;
        c.mlp_bias = type == "llama" && fields.flag("mlp_bias", false);
        reject_sliding_window(fields, json, type, c.max_positions);
        if (c.heads.heads % c.heads.kv_heads != 0) {
            throw fields.wrong("num_key_value_heads", "is " + std::to_string(c.heads.kv_heads) +
                                                          ", which does not divide num_attention_heads " +
                                                          std::to_string(c.heads.heads));
        }
        if (c.heads.head_dim % 2 != 0) {
            throw fields.wrong("head_dim",
                               "is " + std::to_string(c.heads.head_dim) + "; rotary positions need an even number");
        }
        if (activation != "silu" && activation != "swish") {
            throw unknown_activation("silu and swish");
        }
    } else {
        c.intermediate = fields.size("ffn_dim");
        c.heads.kv_heads = c.heads.heads;
        c.max_positions = fields.size("max_position_embeddings", 2048);
        c.qkv_bias = c.output_bias = c.mlp_bias = fields.flag("enable_bias", true);
        fields.require("do_layer_norm_before", true, true);
        fields.require("layer_norm_elementwise_affine", true, true);
        fields.require("_remove_final_layer_norm", false, false);
        if (fields.size("word_embed_proj_dim", c.hidden) != c.hidden) {
            throw fields.wrong("word_embed_proj_dim", "differs from hidden_size, which is not supported");
        }
        auto const known = find_activation(activation);
        c.activation = known ? *known : throw unknown_activation(known_activations);
    }
    return c;
}

DETENT_INLINE model_configuration read_configuration(std::filesystem::path const& path) {
    return parse_configuration(io::read_json(path), path.string());
}

} // namespace detent::inline DETENT_ABI
