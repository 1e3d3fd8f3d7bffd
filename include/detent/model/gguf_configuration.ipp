// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/gguf_metadata.hpp"
#include "detent/io/json.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/gguf_architecture.hpp"
#include "detent/model/gguf_configuration.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rotary_law.hpp"

namespace detent::inline DETENT_ABI {

/// What all architectures say.
inline std::vector<gguf_setting> const& common_gguf_settings() {
    using c = model_configuration const&;
    using value = std::optional<io::gguf_value>;
    static std::vector<gguf_setting> const all{
        {"block_count", "num_hidden_layers", [](c m) { return gguf_count(std::ssize(m.layers)); }},
        {"embedding_length", "hidden_size", [](c m) { return gguf_count(m.hidden); }},
        {"feed_forward_length", "intermediate_size", [](c m) { return gguf_count(m.intermediate); }},
        {"attention.head_count", "num_attention_heads", [](c m) { return gguf_count(m.heads.heads); }},
        {"attention.head_count_kv", "num_key_value_heads", [](c m) { return gguf_count(m.heads.kv_heads); }},
        {"attention.key_length", "head_dim", [](c m) { return gguf_count(m.heads.head_dim); }},
        {"attention.value_length", "", [](c m) { return gguf_count(m.heads.head_dim); }},
        {"attention.layer_norm_rms_epsilon", "rms_norm_eps",
         [](c m) { return m.norm == nn::norm_kind::rms ? value(m.norm_eps) : std::nullopt; }},
        {"attention.layer_norm_epsilon", "layer_norm_eps",
         [](c m) { return m.norm == nn::norm_kind::layer ? value(m.norm_eps) : std::nullopt; }},
        {"vocab_size", "", [](c m) { return gguf_count(m.vocabulary); }},
    };
    return all;
}

/// The first layer whose positions are rotated, and which has no window where there is one; null without any.
inline layer_configuration const* rotated_layer(model_configuration const& c) {
    layer_configuration const* found = nullptr;
    for (auto const& layer : c.layers) {
        if (layer.rotary && (found == nullptr || (found->window > 0 && layer.window == 0))) {
            found = &layer;
        }
    }
    return found;
}

/// Whether layer `i` of an architecture has the window.
inline bool has_gguf_window(gguf_architecture const& a, std::size_t i) {
    return a.windows == gguf_windows::every_second  ? i % 2 == 0
           : a.windows == gguf_windows::five_of_six ? i % 6 != 5
                                                    : false;
}

DETENT_INLINE index_t gguf_positions(model_configuration const& c, gguf_architecture const& a) {
    index_t positions = c.max_positions;
    if (a.windows == gguf_windows::none) {
        for (auto const& layer : c.layers) {
            positions = layer.window > 0 ? std::min(positions, layer.window) : positions;
        }
    }
    return positions;
}

/// Adds how positions are rotated.
inline void add_gguf_rotary(io::gguf_metadata& metadata, nn::rotary_law const& law, std::string const& before) {
    auto const number = [&](char const* key, double x) { metadata.add(before + key, static_cast<float>(x)); };
    auto const count = [&](char const* key, index_t n) { metadata.add(before + key, static_cast<std::uint32_t>(n)); };
    count("dimension_count", law.dimensions);
    number("freq_base", law.base);
    auto const scaling = [&](char const* type, double factor) {
        metadata.add(before + "scaling.type", std::string(type));
        if (factor > 0) {
            number("scaling.factor", factor);
        }
    };
    if (law.kind == nn::rotary_kind::linear) {
        scaling("linear", law.factor);
    } else if (law.kind == nn::rotary_kind::yarn) {
        double const stretched =
            static_cast<double>(law.max_positions) / static_cast<double>(std::max<index_t>(law.original_positions, 1));
        scaling("yarn", law.factor > 0 ? law.factor : stretched);
        count("scaling.original_context_length", law.original_positions);
        number("scaling.yarn_beta_fast", law.beta_fast > 0 ? law.beta_fast : 32);
        number("scaling.yarn_beta_slow", law.beta_slow > 0 ? law.beta_slow : 1);
    } else if (law.kind == nn::rotary_kind::longrope) {
        bool const same = law.short_factor == law.long_factor; // then a tensor of divisors says it
        if (!same) {
            scaling("longrope", 0);
            number("scaling.attn_factor", nn::rotary_of(law, 1).factor());
        }
    }
}

DETENT_INLINE void add_gguf_settings(io::gguf_metadata& metadata, model_configuration const& c,
                                     gguf_architecture const& a) {
    std::string const before = std::string(a.name) + ".";
    auto const add = [&](gguf_setting const& setting) {
        if (auto value = setting.of != nullptr ? setting.of(c) : std::nullopt) {
            metadata.add(before + std::string(setting.key), std::move(*value));
        }
    };
    metadata.add(before + "context_length", static_cast<std::uint32_t>(gguf_positions(c, a)));
    std::ranges::for_each(common_gguf_settings(), add);
    std::ranges::for_each(a.more, add);
    if (auto const* layer = rotated_layer(c)) {
        add_gguf_rotary(metadata, *layer->rotary, before + "rope.");
    }
    for (auto const& layer : c.layers) {
        if (layer.window > 0 && a.windows != gguf_windows::none) {
            metadata.add(before + "attention.sliding_window", static_cast<std::uint32_t>(layer.window));
            if (a.windows == gguf_windows::five_of_six && layer.rotary) {
                metadata.add(before + "rope.freq_base_swa", static_cast<float>(layer.rotary->base));
            }
            break;
        }
    }
}

DETENT_INLINE gguf_contents contents_for(model_configuration const& c, gguf_architecture const& a) {
    gguf_contents contents{.vocabulary = c.vocabulary,
                           .head = !c.tied_embeddings,
                           .two_norms = c.parallel && !c.shared_norm,
                           .attention_bias = c.qkv_bias,
                           .mlp_bias = c.mlp_bias};
    auto const* layer = rotated_layer(c);
    if (layer == nullptr) {
        return contents;
    }
    auto const& law = *layer->rotary;
    bool const one_list = law.kind == nn::rotary_kind::longrope && law.short_factor == law.long_factor;
    if (law.kind == nn::rotary_kind::llama3 && a.divides) {
        auto const plain = nn::plain_frequencies(law.base, law.dimensions);
        auto const divided = nn::rotary_of(law, 1).frequencies();
        for (std::size_t i = 0; i < plain.size(); ++i) {
            contents.divisors.push_back(static_cast<float>(plain[i] / divided[i]));
        }
    } else if (one_list && a.divides) {
        contents.divisors = law.short_factor;
    } else if (law.kind == nn::rotary_kind::longrope && a.divides_long) {
        contents.short_divisors = law.short_factor;
        contents.long_divisors = law.long_factor;
    }
    return contents;
}

/// A value of metadata as JSON.
inline nlohmann::json json_of_value(io::gguf_value const& value) {
    return std::visit([](auto const& v) { return nlohmann::json(v); }, value);
}

/// `rope_parameters`, for all layers alike. `before` begins the keys.
inline nlohmann::json gguf_rotary(io::gguf_metadata const& metadata, gguf_contents const& contents,
                                  std::string const& before, index_t head_dim, index_t positions) {
    auto const number = [&](char const* key, double missing) {
        return metadata.contains(before + key) ? metadata.number(before + key) : missing;
    };
    nlohmann::json rope{{"rope_theta", number("freq_base", 10000)}, {"rope_type", "default"}};
    double const rotated = number("dimension_count", static_cast<double>(head_dim));
    if (rotated != static_cast<double>(head_dim)) { // half a feature more, against rounding down
        rope["partial_rotary_factor"] = (rotated + 0.5) / static_cast<double>(head_dim);
    }
    std::string const type = metadata.contains(before + "scaling.type")
                                 ? metadata.get<std::string>(before + "scaling.type")
                                 : std::string("none");
    auto const original =
        static_cast<index_t>(number("scaling.original_context_length", static_cast<double>(positions)));
    if (!contents.divisors.empty() || !contents.long_divisors.empty()) {
        bool const one = !contents.divisors.empty();
        rope["rope_type"] = "longrope";
        rope["short_factor"] = one ? contents.divisors : contents.short_divisors;
        rope["long_factor"] = one ? contents.divisors : contents.long_divisors;
        rope["original_max_position_embeddings"] = original;
        if (one) {
            rope["factor"] = 1.0;
        }
    } else if (type == "linear" || type == "yarn") {
        rope["rope_type"] = type;
        rope["factor"] = number("scaling.factor", 1);
        if (type == "yarn") {
            rope["original_max_position_embeddings"] = original;
            rope["beta_fast"] = number("scaling.yarn_beta_fast", 32);
            rope["beta_slow"] = number("scaling.yarn_beta_slow", 1);
        }
    } else if (type != "none" && type != "longrope") {
        throw error("key '" + before + "scaling.type'", "is '" + io::printable(type) + "', which is not supported");
    }
    return rope;
}

/// Adds what depends on the layer: windows and the laws of rotary positions.
inline void add_gguf_layers(nlohmann::json& json, io::gguf_metadata const& metadata, gguf_architecture const& a,
                            nlohmann::json rope) {
    std::string const before = std::string(a.name) + ".", window = before + "attention.sliding_window";
    bool const windows = a.windows != gguf_windows::none && metadata.contains(window);
    if (windows) {
        json["sliding_window"] = metadata.integer(window);
        auto types = nlohmann::json::array();
        for (std::size_t i = 0; i < json["num_hidden_layers"].get<std::size_t>(); ++i) {
            types.push_back(has_gguf_window(a, i) ? "sliding_attention" : "full_attention");
        }
        json["layer_types"] = std::move(types);
    }
    if (rope.value("rope_type", "") == "yarn" && !a.whole_pairs) {
        rope["truncate"] = false;
    }
    if (a.windows == gguf_windows::five_of_six) {
        std::string const narrow = before + "rope.freq_base_swa";
        json["rope_parameters"] = {{"full_attention", rope},
                                   {"sliding_attention",
                                    {{"rope_theta", metadata.contains(narrow) ? metadata.number(narrow) : 10000.0},
                                     {"rope_type", "default"}}}};
    } else {
        json["rope_parameters"] = rope;
    }
}

DETENT_INLINE nlohmann::json gguf_configuration(io::gguf_metadata const& metadata, gguf_contents const& contents) {
    gguf_architecture const& a = gguf_architecture_of(metadata);
    std::string const before = std::string(a.name) + ".";
    auto json = nlohmann::json::parse(a.implied);
    auto const add = [&](gguf_setting const& setting) {
        auto const* value = metadata.find(before + std::string(setting.key));
        if (value != nullptr && !setting.field.empty()) {
            json[std::string(setting.field)] = json_of_value(*value);
        }
    };
    std::ranges::for_each(common_gguf_settings(), add);
    std::ranges::for_each(a.more, add);
    index_t const hidden = metadata.integer(before + "embedding_length");
    index_t const heads = metadata.integer(before + "attention.head_count");
    index_t const positions = metadata.integer(before + "context_length");
    if (heads <= 0) {
        throw error("key '" + before + "attention.head_count'", "is not positive");
    }
    json["model_type"] = a.type;
    json["vocab_size"] = contents.vocabulary;
    json["max_position_embeddings"] = positions;
    json["tie_word_embeddings"] = !contents.head;
    json.emplace("num_key_value_heads", heads);
    json.emplace("head_dim", hidden / heads);
    index_t const head_dim = json["head_dim"].get<index_t>();
    if (!a.attention_bias.empty()) {
        json[std::string(a.attention_bias)] = contents.attention_bias;
    }
    if (!a.mlp_bias.empty()) {
        json[std::string(a.mlp_bias)] = contents.mlp_bias;
    }
    for (auto const* field : {"bos_token_id", "eos_token_id"}) {
        if (auto const* id = metadata.find(std::string("tokenizer.ggml.") + field)) {
            json[field] = json_of_value(*id);
        }
    }
    if (a.largest > 0) {
        bool const shares = json["num_hidden_layers"] == a.largest;
        json["query_pre_attn_scalar"] = shares ? hidden / heads : head_dim;
    }
    if (a.name == "falcon") {
        json["num_ln_in_parallel_attn"] = contents.two_norms ? 2 : 1;
    }
    if (metadata.contains(before + "rope.dimension_count") || metadata.contains(before + "rope.freq_base")) {
        add_gguf_layers(json, metadata, a, gguf_rotary(metadata, contents, before + "rope.", head_dim, positions));
    }
    return json;
}

/// Whether two laws turn the same pairs by the same angles, but for rounding to float.
inline bool is_same_rotary(std::optional<nn::rotary_law> const& a, std::optional<nn::rotary_law> const& b,
                           index_t positions) {
    if (!a || !b) {
        return !a && !b;
    }
    auto const close = [](double x, double y) { return std::abs(x - y) <= 1e-6 * std::abs(x); };
    for (index_t const length : {index_t{1}, positions}) {
        auto const x = nn::rotary_of(*a, length), y = nn::rotary_of(*b, length);
        if (x.interleaved() != y.interleaved() || !close(x.factor(), y.factor()) ||
            !std::ranges::equal(x.frequencies(), y.frequencies(), close)) {
            return false;
        }
    }
    return true;
}

/// What a layer of a file's model would do otherwise, in `positions` positions; empty where all do the same.
inline std::string gguf_layer_difference(model_configuration const& c, model_configuration const& file,
                                         index_t positions) {
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        auto const &a = c.layers[i], &b = file.layers[i];
        auto const window = [&](index_t w) { return w == 0 ? positions : std::min(w, positions); };
        if (window(a.window) != window(b.window)) {
            return "the window of layer " + std::to_string(i);
        }
        if (!is_same_rotary(a.rotary, b.rotary, positions)) {
            return "the rotary positions of layer " + std::to_string(i);
        }
        if (a.experts != b.experts || a.score_divisor != b.score_divisor) {
            return "layer " + std::to_string(i);
        }
    }
    return {};
}

/// What the model of a file would do otherwise than that of configuration `c`, in `positions` positions; empty where it
/// does the same.
inline std::string gguf_difference(model_configuration const& c, model_configuration const& file, index_t positions) {
    auto const close = [](double a, double b) { return std::abs(a - b) <= 1e-6 * std::abs(a); };
    auto const of = [](branch_norms const& n) { return std::vector<bool>{n.input, n.output, n.sum, n.scale}; };
    auto const experts = [](auto const& e) {
        using list = std::vector<double>;
        return !e ? list()
                  : list{static_cast<double>(e->count),
                         static_cast<double>(e->intermediate),
                         static_cast<double>(e->shared_intermediate),
                         e->routing.renormalized ? 1.0 : 0.0,
                         e->routing.factor,
                         e->routing.score == nn::router_score::softmax ? 1.0 : 0.0,
                         static_cast<double>(e->routing.experts_per_token)};
    };
    if (c.gated != file.gated || c.gate.kind != file.gate.kind) {
        return "the activation of its feed-forward networks";
    }
    if (c.norm != file.norm || of(c.norms) != of(file.norms) || c.norm_weights != file.norm_weights ||
        c.embedding_norm != file.embedding_norm || c.final_norm != file.final_norm || c.norm_eps != file.norm_eps) {
        return "its norms";
    }
    if (c.query_key_norm != file.query_key_norm || (c.query_key_norm && c.head_norm != file.head_norm)) {
        return "the norms of queries and keys";
    }
    if (c.parallel != file.parallel || c.shared_norm != file.shared_norm) {
        return "its parallel branches";
    }
    if (!close(c.attention.scale, file.attention.scale) || !close(c.attention.soft_cap, file.attention.soft_cap) ||
        c.attention.slopes != file.attention.slopes) {
        return "the scale, cap or slopes of its attention's scores";
    }
    if (experts(c.experts) != experts(file.experts)) {
        return "its experts";
    }
    if (!close(c.embedding_multiplier, file.embedding_multiplier) || !close(c.logit_cap, file.logit_cap) ||
        !close(c.residual_multiplier, file.residual_multiplier) || !close(c.logit_multiplier, file.logit_multiplier)) {
        return "its multipliers and the cap of its logits";
    }
    if (c.learned_positions != file.learned_positions || c.position_offset != file.position_offset ||
        c.embedding_width != file.embedding_width) {
        return "its positions and embeddings";
    }
    if (c.qkv_bias != file.qkv_bias || c.output_bias != file.output_bias || c.mlp_bias != file.mlp_bias ||
        c.head_bias != file.head_bias) {
        return "its biases";
    }
    return gguf_layer_difference(c, file, positions);
}

DETENT_INLINE std::string gguf_obstacle(model_configuration const& c) {
    gguf_architecture const* const a = find_gguf_architecture(c.type);
    if (a == nullptr) {
        return "llama.cpp has no architecture for models of type '" + io::printable(c.type) +
               "', or none that is known";
    }
    std::string const name = "llama.cpp's architecture '" + std::string(a->name) + "' ";
    if (a->always_tied && !c.tied_embeddings) {
        return name + "has no output head of its own";
    }
    io::gguf_metadata metadata("GGUF");
    metadata.add("general.architecture", std::string(a->name));
    try {
        add_gguf_settings(metadata, c, *a);
        auto const json = gguf_configuration(metadata, contents_for(c, *a));
        auto const what = gguf_difference(c, parse_configuration(json, "GGUF"), gguf_positions(c, *a));
        return what.empty() ? what : name + "has another form of " + what;
    } catch (error const& e) {
        return name + "cannot say what it is: " + e.what();
    }
}

} // namespace detent::inline DETENT_ABI
