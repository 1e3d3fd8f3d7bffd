// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <string>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/model/common_fields.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rotary_law.hpp"

// LLaMA and the families that follow it: normalization before both branches, rotary positions, and mostly RMSNorm and
// gated feed-forward networks. Numbers are the defaults of their classes in Hugging Face transformers.
namespace detent::inline DETENT_ABI {

// ---- What they have in common ------------------------------------------------------------------------------------

DETENT_INLINE tensor_names llama_names() { return {}; }

/// LLaMA's names with what a family writes in other words.
template <class Change> tensor_names names_like_llama(Change const& change) {
    tensor_names n;
    change(n);
    return n;
}

/// The fields of LLaMA's class that most families took over.
DETENT_INLINE void read_llama(configuration_fields const& fields, model_configuration& c,
                              family_defaults const& defaults = {}) {
    read_common(fields, c, defaults);
    read_rotaries(fields, c, defaults);
}

/// Biases of attention that LLaMA's switch turns on, all four or none.
DETENT_INLINE void read_attention_bias(configuration_fields const& fields, model_configuration& c,
                                       bool missing = false) {
    c.qkv_bias = c.output_bias = fields.flag("attention_bias", missing);
}

/// LayerNorm with biases.
DETENT_INLINE void make_layer_norm(model_configuration& c) {
    c.norm = nn::norm_kind::layer;
    c.norm_bias = true;
}

/// down(act(up(x))), without a gate.
DETENT_INLINE void remove_gate(model_configuration& c) {
    c.gated = false;
    c.names.gate.clear();
}

/// Rotates pairs of neighbours, not of halves.
DETENT_INLINE void interleave(model_configuration& c) {
    for (auto& layer : c.layers) {
        if (layer.rotary) {
            layer.rotary->interleaved = true;
        }
    }
}

/// Reads the window that all layers have, `missing` where no field says; null is none.
DETENT_INLINE void read_window(configuration_fields const& fields, model_configuration& c, index_t missing = 0) {
    read_one_window(fields, c, fields.has("sliding_window") ? fields.size_or_none("sliding_window") : missing);
}

// ---- LLaMA, Mistral, and others of their shape ---------------------------------------------------------------------

DETENT_INLINE void read_llama_biases(configuration_fields const& fields, model_configuration& c,
                                     family_defaults const& defaults = {}) {
    read_llama(fields, c, defaults);
    read_attention_bias(fields, c);
    c.mlp_bias = fields.flag("mlp_bias", false);
}

DETENT_INLINE void read_llama_family(configuration_fields const& fields, model_configuration& c) {
    read_llama_biases(fields, c);
}

DETENT_INLINE void read_arcee(configuration_fields const& fields, model_configuration& c) {
    read_llama_biases(fields, c, {.max_positions = 4096, .norm_eps = 1e-5, .activation = nn::activation::relu_squared});
    remove_gate(c);
}

DETENT_INLINE void read_mistral(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 8, .max_positions = 131072});
    read_window(fields, c, 4096);
}

DETENT_INLINE void read_ministral(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 8, .max_positions = 131072});
    index_t const window = fields.has("sliding_window") ? fields.size_or_none("sliding_window") : 4096;
    read_windows(fields, c, window, [&](index_t) { return window > 0; });
}

/// Mistral 3: queries are scaled by a logarithm of their position, which is 0 in the original context; longer sequences
/// are refused.
DETENT_INLINE void read_ministral3(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{
        .kv_heads = 8, .head_dim = 128, .max_positions = 262144, .norm_eps = 1e-5, .scaled_queries = true};
    auto const rope = fields.object("rope_parameters");
    if (!rope) {
        throw fields.wrong("rope_parameters", "is missing");
    }
    read_llama(fields, c, defaults);
    if (rope->find("llama_4_scaling_beta") != nullptr && *rope->find("llama_4_scaling_beta") != 0) {
        c.max_positions = std::min(c.max_positions, c.layers.front().rotary->original_positions);
    }
    read_window(fields, c);
}

DETENT_INLINE void read_seed_oss(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.head_dim = 128, .max_positions = 524288});
    c.qkv_bias = fields.flag("attention_bias", true);
    c.output_bias = fields.flag("attention_out_bias", false);
    c.mlp_bias = fields.flag("mlp_bias", false);
}

DETENT_INLINE void read_ernie(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c,
               {.kv_heads = 2,
                .head_dim = 128,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                .tied = true,
                .rope_theta = 500000});
    c.qkv_bias = c.output_bias = c.mlp_bias = fields.flag("use_bias", false);
    interleave(c);
}

DETENT_INLINE void read_helium(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c,
               {.kv_heads = 20, .head_dim = 128, .max_positions = 4096, .norm_eps = 1e-8, .rope_theta = 100000});
    c.qkv_bias = fields.flag("attention_bias", false);
    c.mlp_bias = fields.flag("mlp_bias", false);
    interleave(c);
}

/// GLM-4 of the first kind: half of a head is rotated, in pairs of neighbours; gate and up are one layer.
DETENT_INLINE void read_glm(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c,
               {.kv_heads = 2, .head_dim = 128, .max_positions = 131072, .norm_eps = 1.5625e-07, .rotary_share = 0.5});
    c.qkv_bias = fields.flag("attention_bias", true);
    interleave(c);
}

DETENT_INLINE tensor_names glm_names() {
    return names_like_llama([](tensor_names& n) { n.gate_up = "mlp.gate_up_proj"; });
}

/// GLM-4-0414, which also normalizes what branches make.
DETENT_INLINE void read_glm4(configuration_fields const& fields, model_configuration& c) {
    read_glm(fields, c);
    c.norms = {.input = true, .output = true};
}

DETENT_INLINE tensor_names glm4_names() {
    tensor_names n = glm_names();
    n.attention_output_norm = "post_self_attn_layernorm";
    n.mlp_output_norm = "post_mlp_layernorm";
    return n;
}

DETENT_INLINE void read_phi3(configuration_fields const& fields, model_configuration& c) {
    // Phi-4-mini has fields of another architecture, with the values that say nothing.
    for (auto const* field : {"attention_bias", "mlp_bias", "lm_head_bias"}) {
        fields.require(field, false, false);
    }
    fields.expect("full_attn_mod", 1);
    fields.expect("interpolate_factor", 1);
    read_llama(fields, c,
               {.max_positions = 4096,
                .norm_eps = 1e-5,
                .rotary_share = 1,
                .original_positions = 4096,
                .only_longrope = true});
    read_window(fields, c);
}

DETENT_INLINE tensor_names phi3_names() {
    tensor_names n = glm_names();
    n.qkv = "self_attn.qkv_proj";
    return n;
}

/// Layers without positions, one in four by default.
DETENT_INLINE void read_smollm3(configuration_fields const& fields, model_configuration& c) {
    read_llama_biases(fields, c, {.kv_heads = 4, .max_positions = 32768, .tied = true, .rope_theta = 2e6});
    index_t const interval = fields.size("no_rope_layer_interval", 4);
    auto const* rotated = fields.find("no_rope_layers"); // 1 where positions are rotated, in spite of the name
    if (rotated != nullptr && (!rotated->is_array() || std::ssize(*rotated) != std::ssize(c.layers))) {
        throw fields.wrong("no_rope_layers", "is no list with one entry for each layer");
    }
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        bool const rope = rotated != nullptr ? (*rotated)[i] != 0 : (static_cast<index_t>(i) + 1) % interval != 0;
        if (!rope) {
            c.layers[i].rotary.reset();
        }
    }
    fields.ignore({"max_window_layers"}); // of Qwen
    bool const on = fields.flag("use_sliding_window", false);
    index_t const window = fields.size_or_none("sliding_window");
    auto const layers = c.layers;
    read_windows(fields, c, on ? window : 0,
                 [&](index_t layer) { return on && window > 0 && !layers[static_cast<std::size_t>(layer)].rotary; });
}

/// Granite's multipliers.
DETENT_INLINE void read_multipliers(configuration_fields const& fields, model_configuration& c) {
    c.embedding_multiplier = fields.positive("embedding_multiplier", 1.0);
    c.attention.scale = fields.positive("attention_multiplier", 1.0);
    c.residual_multiplier = fields.positive("residual_multiplier", 1.0);
    c.logit_multiplier = 1 / fields.positive("logits_scaling", 1.0);
}

DETENT_INLINE void read_granite(configuration_fields const& fields, model_configuration& c) {
    read_llama_biases(fields, c);
    read_multipliers(fields, c);
}

// ---- Qwen, OLMo, EXAONE: queries and keys are normalized -----------------------------------------------------------

/// Qwen's windows: only where they are switched on, from one layer on.
DETENT_INLINE void read_qwen_windows(configuration_fields const& fields, model_configuration& c) {
    bool const on = fields.flag("use_sliding_window", false);
    index_t const window = fields.has("sliding_window") ? fields.size_or_none("sliding_window") : 4096;
    index_t const from = fields.size_or_none("max_window_layers", 28);
    read_windows(fields, c, on ? window : 0, [&](index_t layer) { return on && window > 0 && layer >= from; });
}

DETENT_INLINE void read_qwen2(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 32, .max_positions = 32768});
    c.qkv_bias = true;
    read_qwen_windows(fields, c);
}

DETENT_INLINE void read_qwen3(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 32, .head_dim = 128, .max_positions = 32768});
    read_attention_bias(fields, c);
    c.query_key_norm = nn::norm_kind::rms;
    read_qwen_windows(fields, c);
}

/// LayerNorm without weights.
DETENT_INLINE void read_olmo(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.norm_eps = 1e-5}); // clip_qkv is not understood
    read_attention_bias(fields, c);
    c.norm = nn::norm_kind::layer;
    c.norm_weights = false;
}

/// Normalizes what branches make, and nothing else but queries and keys.
DETENT_INLINE void read_olmo2_norms(model_configuration& c) {
    c.norms = {.input = false, .output = true};
    c.query_key_norm = nn::norm_kind::rms;
    c.head_norm = head_norm_weights::all_heads;
}

DETENT_INLINE void read_olmo2(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.norm_eps = 1e-5});
    read_attention_bias(fields, c);
    read_olmo2_norms(c);
}

DETENT_INLINE tensor_names olmo2_names() {
    return names_like_llama([](tensor_names& n) {
        n.attention_output_norm = "post_attention_layernorm";
        n.mlp_output_norm = "post_feedforward_layernorm";
    });
}

DETENT_INLINE void read_olmo3(configuration_fields const& fields, model_configuration& c) {
    read_olmo2(fields, c);
    read_windows(fields, c, fields.size("sliding_window", 4096), [](index_t layer) { return (layer + 1) % 4 != 0; });
    // Before transformers 5 only layers without a window were scaled; since then all are.
    for (auto& layer : c.layers) {
        if (layer.window > 0 && !is_of_transformers_5(fields)) {
            layer.rotary->kind = nn::rotary_kind::plain;
        }
    }
}

DETENT_INLINE void read_exaone4(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 32, .norm_eps = 1e-5});
    read_olmo2_norms(c);
    c.head_norm = head_norm_weights::shared;
    index_t const window = fields.has("sliding_window") ? fields.size_or_none("sliding_window") : 4096;
    bool const listed = fields.find("layer_types") != nullptr; // the pattern may then be a word
    index_t const pattern = listed ? 0 : fields.size_or_none("sliding_window_pattern", 4);
    fields.ignore({"sliding_window_pattern"});
    read_windows(fields, c, window,
                 [&](index_t layer) { return window > 0 && pattern > 0 && (layer + 1) % pattern != 0; });
    for (auto& layer : c.layers) {
        if (window > 0 && layer.window == 0) { // what sees all has no positions where others have a window
            layer.rotary.reset();
        }
    }
}

// ---- Gemma -------------------------------------------------------------------------------------------------------

DETENT_INLINE void read_gemma_parts(configuration_fields const& fields, model_configuration& c,
                                    family_defaults const& defaults) {
    read_common(fields, c, defaults);
    read_attention_bias(fields, c);
    c.norm_offset = 1;
    c.embedding_multiplier = static_cast<double>(std::sqrt(static_cast<float>(c.hidden)));
    if (auto const* both = fields.find("use_bidirectional_attention"); both != nullptr && *both != false) {
        throw fields.wrong("use_bidirectional_attention", "is not false, which is not supported");
    }
}

DETENT_INLINE void read_gemma(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{
        .kv_heads = 16, .head_dim = 256, .max_positions = 8192, .activation = nn::activation::gelu_tanh, .tied = true};
    read_gemma_parts(fields, c, defaults);
    // The first checkpoints said gelu and meant its tanh form, unless another field said what was meant.
    auto const meant = read_activation(fields, "hidden_activation", nn::activation::gelu_tanh);
    if (!is_of_transformers_5(fields)) {
        c.gate.kind = meant;
    }
    read_rotaries(fields, c, defaults);
}

/// Gemma 2 and 3: norms around both branches, a scale of its own.
DETENT_INLINE void read_later_gemma(configuration_fields const& fields, model_configuration& c,
                                    family_defaults const& defaults) {
    fields.ignore({"hidden_act"}); // of the first Gemma
    read_gemma_parts(fields, c, defaults);
    c.attention.scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar", 256.0));
}

DETENT_INLINE void read_gemma2(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{.kv_heads = 4,
                                   .head_dim = 256,
                                   .max_positions = 8192,
                                   .activation = nn::activation::gelu_tanh,
                                   .activation_field = "hidden_activation",
                                   .tied = true};
    read_later_gemma(fields, c, defaults);
    read_rotaries(fields, c, defaults);
    c.norms = {.input = true, .output = true};
    c.attention.soft_cap = fields.has("attn_logit_softcapping") ? fields.positive("attn_logit_softcapping", 0.0) : 50;
    c.logit_cap = fields.has("final_logit_softcapping") ? fields.positive("final_logit_softcapping", 0.0) : 30;
    read_windows(fields, c, fields.size("sliding_window", 4096), [](index_t layer) { return layer % 2 == 0; });
}

/// Without norms of what branches make.
DETENT_INLINE void read_vaultgemma(configuration_fields const& fields, model_configuration& c) {
    read_gemma2(fields, c);
    c.norms = {};
}

DETENT_INLINE tensor_names gemma2_names() {
    return names_like_llama([](tensor_names& n) {
        n.attention_output_norm = "post_attention_layernorm";
        n.mlp_norm = "pre_feedforward_layernorm";
        n.mlp_output_norm = "post_feedforward_layernorm";
    });
}

/// The rotary positions of Gemma 3: layers with a window have a law of their own.
DETENT_INLINE void read_gemma3_rotaries(configuration_fields const& fields, model_configuration& c,
                                        family_defaults const& defaults) {
    nn::rotary_law wide{.base = fields.positive("rope_theta", 1e6),
                        .dimensions = c.heads.head_dim,
                        .max_positions = c.max_positions,
                        .original_positions = c.max_positions};
    nn::rotary_law narrow = wide;
    narrow.base = fields.positive("rope_local_base_freq", 10000.0);
    auto const scaling = fields.object("rope_scaling"); // of what sees all, as transformers 4 wrote it
    auto const both = fields.object("rope_parameters");
    auto const of_wide = both ? both->object("full_attention") : std::nullopt;
    auto const of_narrow = both ? both->object("sliding_attention") : std::nullopt;
    if (both) {
        both->expect_all_read();
    }
    if (of_wide && scaling) {
        throw fields.wrong("rope_scaling", "is there beside rope_parameters");
    }
    if (of_wide || scaling) {
        read_rotary(of_wide ? *of_wide : *scaling, c, defaults, wide, true);
    }
    if (of_narrow) {
        read_rotary(*of_narrow, c, defaults, narrow, true);
    }
    for (auto& layer : c.layers) {
        layer.rotary = layer.window > 0 ? narrow : wide;
    }
    expect_rotated_pairs(fields, c);
}

DETENT_INLINE void read_gemma3(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{.kv_heads = 4,
                                   .head_dim = 256,
                                   .max_positions = 131072,
                                   .activation = nn::activation::gelu_tanh,
                                   .activation_field = "hidden_activation",
                                   .tied = true};
    read_later_gemma(fields, c, defaults);
    c.norms = {.input = true, .output = true};
    c.query_key_norm = nn::norm_kind::rms;
    fields.expect("attn_logit_softcapping", nullptr); // its code has none
    c.logit_cap = fields.positive("final_logit_softcapping", 0.0);
    index_t const pattern = fields.size("sliding_window_pattern", 6);
    if (fields.find("layer_types") == nullptr && fields.find("sliding_window_pattern") == nullptr) {
        fields.expect("_sliding_window_pattern", pattern); // a note that does not count
    }
    fields.ignore({"_sliding_window_pattern"});
    read_windows(fields, c, fields.size("sliding_window", 4096),
                 [&](index_t layer) { return (layer + 1) % pattern != 0; });
    read_gemma3_rotaries(fields, c, defaults);
}

} // namespace detent::inline DETENT_ABI
