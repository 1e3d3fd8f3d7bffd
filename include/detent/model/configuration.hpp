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
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"

namespace detent::inline DETENT_ABI {

/// The architectures a decoder can have.
enum class model_family {
    llama, ///< RMSNorm, rotary positions, grouped-query attention, SwiGLU: LLaMA, Mistral, Qwen2
    opt    ///< LayerNorm, learned positions, a two-layer feed-forward network
};

/// The sizes and switches of a decoder, under one name for every family.
struct model_configuration {
    model_family family = model_family::llama;
    index_t vocabulary = 0;
    index_t hidden = 0;       ///< features of a token between blocks
    index_t layers = 0;       ///< number of blocks
    index_t intermediate = 0; ///< features inside the feed-forward network
    nn::attention_heads heads;
    index_t max_positions = 0;
    nn::activation activation = nn::activation::silu; ///< of the gate where there is one
    float norm_eps = 1e-5F;
    double rope_theta = 10000.0; ///< llama only
    bool tied_embeddings = false;
    bool qkv_bias = false;
    bool output_bias = false; ///< of the projection after attention
    bool mlp_bias = false;
    std::vector<index_t> end_of_text; ///< ids after which generation stops; may be empty
};

/// Reads the fields of one `config.json`; a field that is null counts as missing. Every error names file and field.
class configuration_fields {
public:
    configuration_fields(nlohmann::json const& json, std::string file) : json_(json), file_(std::move(file)) {
        if (!json.is_object()) {
            throw error(file_, "is not a JSON object");
        }
    }

    /// The error `problem` about `field`.
    error wrong(std::string const& field, std::string const& problem) const {
        return error(file_ + ", field '" + field + "'", problem);
    }

    /// The value of `field`, or nothing where it is missing or null.
    nlohmann::json const* find(std::string const& field) const {
        auto const found = json_.find(field);
        return found == json_.end() || found->is_null() ? nullptr : &*found;
    }

    /// A number of things from 1 to `most`, by default more than any model has and few enough that the product of two
    /// fits an `index_t`.
    index_t size(std::string const& field, std::optional<index_t> missing = {}, index_t most = index_t{1} << 24) const {
        auto const* value = find(field);
        if (value == nullptr) {
            return missing ? *missing : throw wrong(field, "is missing");
        }
        if (!value->is_number_integer() || value->get<double>() < 1 ||
            value->get<double>() > static_cast<double>(most)) {
            throw wrong(field, "is " + io::printable(value->dump()) + "; expected an integer from 1 to " +
                                   std::to_string(most));
        }
        return value->get<index_t>();
    }

    /// A number above 0 that is a finite float.
    double positive(std::string const& field, double missing) const {
        auto const* value = find(field);
        if (value == nullptr) {
            return missing;
        }
        if (!value->is_number() || !(value->get<float>() > 0) || !std::isfinite(value->get<float>())) {
            throw wrong(field, "is " + io::printable(value->dump()) + "; expected a positive number");
        }
        return value->get<double>();
    }

    bool flag(std::string const& field, bool missing) const {
        auto const* value = find(field);
        if (value != nullptr && !value->is_boolean()) {
            throw wrong(field, "is " + io::printable(value->dump()) + "; expected true or false");
        }
        return value == nullptr ? missing : value->get<bool>();
    }

    std::string text(std::string const& field, std::optional<std::string> missing = {}) const {
        auto const* value = find(field);
        if (value == nullptr) {
            return missing ? *missing : throw wrong(field, "is missing");
        }
        if (!value->is_string()) {
            throw wrong(field, "is " + io::printable(value->dump()) + "; expected a string");
        }
        return value->get<std::string>();
    }

    /// Refuses a switch that this library does not implement unless it is off.
    void require(std::string const& field, bool supported, bool missing) const {
        if (flag(field, missing) != supported) {
            throw wrong(field, std::string("is ") + (supported ? "false" : "true") + ", which is not supported");
        }
    }

    /// Token ids in `field`: none, one, or a list.
    std::vector<index_t> token_ids(std::string const& field, index_t vocabulary) const {
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

private:
    nlohmann::json const& json_;
    std::string file_;
};

/// The activation that Hugging Face calls `name`, or nothing where a two-layer feed-forward network has no such one.
inline std::optional<nn::activation> find_activation(std::string const& name) {
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

/// What `find_activation` finds, as errors list it.
inline constexpr char const* known_activations = "relu, gelu, gelu_new, gelu_fast and gelu_pytorch_tanh";

/// The base of rotary positions. Throws `error` where positions are scaled or partial.
inline double parse_rope_theta(configuration_fields const& fields, nlohmann::json const& json,
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

/// Throws `error` where some layer would see fewer tokens than the longest sequence has.
inline void reject_sliding_window(configuration_fields const& fields, nlohmann::json const& json,
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

/// Interprets the fields of a Hugging Face `config.json` with `model_type` llama, mistral, qwen2 or opt. Missing
/// optional fields take the defaults of Hugging Face. Throws `error` naming `file` and the field that is wrong or asks
/// for something this library does not compute.
inline model_configuration parse_configuration(nlohmann::json const& json, std::string const& file) {
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

/// Reads a Hugging Face `config.json`. Throws like `parse_configuration`.
inline model_configuration read_configuration(std::filesystem::path const& path) {
    return parse_configuration(io::read_json(path), path.string());
}

} // namespace detent::inline DETENT_ABI
