// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/model/common_fields.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/families_like_llama.ipp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/router.hpp"

// Families whose feed-forward networks are experts. Numbers are the defaults of their classes in Hugging Face
// transformers.
namespace detent::inline DETENT_ABI {

/// The experts of all layers together; the largest models in use have some 25 000.
inline constexpr index_t most_experts = index_t{1} << 19;

/// Makes the network of every layer one of experts; reads how many there are, `count` where no field says, and how many
/// a token is sent to.
DETENT_INLINE void read_experts(configuration_fields const& fields, model_configuration& c, index_t count,
                                index_t per_token, index_t intermediate) {
    c.experts = expert_configuration{
        .count = fields.size(fields.either({"num_experts", "num_local_experts", "n_routed_experts"}), count,
                             most_experts / std::ssize(c.layers)),
        .intermediate = intermediate};
    index_t const chosen = fields.size(fields.either({"num_experts_per_tok", "experts_per_token"}), per_token);
    if (chosen > c.experts->count) {
        throw fields.wrong("num_experts_per_tok", "is " + std::to_string(chosen) + ", more than there are experts");
    }
    c.experts->routing.experts_per_token = chosen;
    for (auto& layer : c.layers) {
        layer.experts = true;
    }
}

/// Reads which layers have experts: all, or every so manieth, but for those in a list.
DETENT_INLINE void read_sparse_layers(configuration_fields const& fields, model_configuration& c) {
    index_t const step = fields.size("decoder_sparse_step", 1);
    auto const* dense = fields.find("mlp_only_layers");
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        bool const listed = dense != nullptr && std::count(dense->begin(), dense->end(), i) > 0;
        c.layers[i].experts = !listed && (static_cast<index_t>(i) + 1) % step == 0;
    }
}

DETENT_INLINE tensor_names expert_names() {
    return names_like_llama([](tensor_names& n) {
        n.router = "mlp.gate";
        n.experts = "mlp.experts.";
        n.fused_gate_up = "mlp.experts.gate_up_proj";
        n.fused_down = "mlp.experts.down_proj";
    });
}

DETENT_INLINE void read_mixtral(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 8, .max_positions = 131072, .norm_eps = 1e-5, .rope_theta = 1e6});
    read_experts(fields, c, 8, 2, c.intermediate);
    read_window(fields, c);
}

DETENT_INLINE tensor_names mixtral_names() {
    tensor_names n = expert_names();
    n.router = "block_sparse_moe.gate";
    n.experts = "block_sparse_moe.experts.";
    n.expert_gate = "w1";
    n.expert_up = "w3";
    n.expert_down = "w2";
    return n;
}

DETENT_INLINE void read_qwen2_moe(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 16, .max_positions = 32768});
    c.qkv_bias = fields.flag("qkv_bias", true);
    read_experts(fields, c, 60, 4, fields.size("moe_intermediate_size", 1408));
    read_sparse_layers(fields, c);
    c.experts->routing.renormalized = fields.flag("norm_topk_prob", false);
    c.experts->shared_intermediate = fields.size("shared_expert_intermediate_size", 5632);
    c.experts->shared_gate = true;
    bool const on = fields.flag("use_sliding_window", false);
    index_t const window = fields.has("sliding_window") ? fields.size_or_none("sliding_window") : 4096;
    index_t const most = fields.size_or_none("max_window_layers", 28);
    read_windows(fields, c, on ? window : 0, [&](index_t layer) { return on && layer % 2 == 0 && layer < most; });
}

DETENT_INLINE tensor_names qwen2_moe_names() {
    tensor_names n = expert_names();
    n.shared_expert = "mlp.shared_expert";
    n.shared_gate = "mlp.shared_expert_gate";
    return n;
}

DETENT_INLINE void read_qwen3_moe(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 4, .max_positions = 32768});
    read_attention_bias(fields, c);
    c.query_key_norm = nn::norm_kind::rms;
    read_experts(fields, c, 128, 8, fields.size("moe_intermediate_size", 768));
    read_sparse_layers(fields, c);
    c.experts->routing.renormalized = fields.flag("norm_topk_prob", false);
    index_t const window = fields.size("sliding_window", 4096);
    read_one_window(fields, c, fields.flag("use_sliding_window", false) ? window : 0);
    fields.ignore({"max_window_layers"}); // of Qwen3: here all layers have the window, if there is one
}

DETENT_INLINE void read_olmoe_experts(configuration_fields const& fields, model_configuration& c, index_t count,
                                      index_t per_token) {
    read_attention_bias(fields, c);
    read_experts(fields, c, count, per_token, c.intermediate);
    c.experts->routing.renormalized = fields.flag("norm_topk_prob", false);
    c.query_key_norm = nn::norm_kind::rms;
    c.head_norm = head_norm_weights::all_heads;
}

DETENT_INLINE void read_olmoe(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.max_positions = 4096, .norm_eps = 1e-5});
    read_olmoe_experts(fields, c, 64, 8);
}

/// OLMoE with the norms of OLMo 2.
DETENT_INLINE void read_flex_olmo(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.max_positions = 4096, .rope_theta = 500000});
    read_olmoe_experts(fields, c, 7, 5);
    c.norms = {.input = false, .output = true};
}

DETENT_INLINE tensor_names flex_olmo_names() {
    tensor_names n = expert_names();
    n.attention_output_norm = "post_attention_layernorm";
    n.mlp_output_norm = "post_feedforward_layernorm";
    return n;
}

/// Granite with experts, and a network that every token passes too, unless its width is 0.
DETENT_INLINE void read_granite_moe(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c);
    read_attention_bias(fields, c);
    read_multipliers(fields, c);
    read_experts(fields, c, 8, 2, c.intermediate);
    c.experts->shared_intermediate = fields.size_or_none("shared_intermediate_size");
}

DETENT_INLINE tensor_names granite_moe_names() {
    return names_like_llama([](tensor_names& n) {
        n.router = "block_sparse_moe.router.layer";
        n.experts = "block_sparse_moe.experts.";
        n.fused_gate_up = "block_sparse_moe.input_linear.weight";
        n.fused_down = "block_sparse_moe.output_linear.weight";
        n.shared_gate_up = "shared_mlp.input_linear";
        n.shared_down = "shared_mlp.output_linear";
    });
}

/// Granite 4 where all layers are attention's; there may be no experts but the network that every token passes.
DETENT_INLINE void read_granite_hybrid(configuration_fields const& fields, model_configuration& c) {
    auto const types = fields.words("layer_types", fields.size("num_hidden_layers"));
    if (types.empty() || std::count(types.begin(), types.end(), "attention") != std::ssize(types)) {
        throw fields.wrong("layer_types", "holds other layers than 'attention', which is not supported");
    }
    fields.ignore({"mamba_chunk_size", "mamba_conv_bias", "mamba_d_conv", "mamba_d_head", "mamba_d_state",
                   "mamba_expand", "mamba_n_groups", "mamba_n_heads", "mamba_proj_bias", "time_step_limit",
                   "time_step_max", "time_step_min"}); // of layers that are not there
    bool const rotated = fields.text("position_embedding_type", "none") == "rope";
    index_t const shared = fields.size("shared_intermediate_size", 1024);
    auto const* experts = fields.find("num_local_experts");
    if (experts != nullptr && *experts == 0) {
        read_llama(fields, c);
        read_attention_bias(fields, c);
        read_multipliers(fields, c);
        fields.ignore({"num_experts_per_tok"}); // of none
        c.intermediate = shared;
        c.names.gate_up = c.names.shared_gate_up;
        c.names.down = c.names.shared_down;
    } else {
        read_granite_moe(fields, c);
        c.experts->shared_intermediate = shared;
    }
    for (auto& layer : c.layers) {
        layer.rotary = rotated ? layer.rotary : std::nullopt;
    }
}

/// Routers with sigmoids, and shared experts, as DeepSeek has them; of one group. The first `dense` layers have none.
DETENT_INLINE void read_scored_experts(configuration_fields const& fields, model_configuration& c, index_t count,
                                       index_t intermediate, index_t dense) {
    index_t const width = fields.size("moe_intermediate_size", intermediate);
    read_experts(fields, c, count, 8, width);
    c.experts->shared_intermediate = width * fields.size("n_shared_experts", 1, 1 << 10);
    c.experts->routing.score = nn::router_score::sigmoid;
    c.experts->routing.renormalized = fields.flag("norm_topk_prob", true);
    c.experts->routing.factor = fields.positive("routed_scaling_factor", 1.0);
    fields.expect("n_group", 1);
    fields.expect("topk_group", 1);
    for (index_t i = 0; i < std::min<index_t>(dense, std::ssize(c.layers)); ++i) {
        c.layers[static_cast<std::size_t>(i)].experts = false;
    }
}

DETENT_INLINE tensor_names scored_expert_names() {
    tensor_names n = expert_names();
    n.router_correction = "mlp.gate.e_score_correction_bias";
    n.shared_expert = "mlp.shared_experts";
    return n;
}

DETENT_INLINE void read_glm4_moe(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 8, .max_positions = 131072, .norm_eps = 1e-5, .rotary_share = 0.5});
    c.qkv_bias = fields.flag("attention_bias", false);
    if (fields.flag("use_qk_norm", false)) {
        c.query_key_norm = nn::norm_kind::rms;
    }
    read_scored_experts(fields, c, 128, 1408, fields.size_or_none("first_k_dense_replace", 1));
}

DETENT_INLINE void read_dots1(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 32});
    read_attention_bias(fields, c);
    c.query_key_norm = nn::norm_kind::rms;
    for (auto const* field : {"n_routed_experts", "num_experts_per_tok", "n_shared_experts"}) {
        fields.size(field); // has no default
    }
    read_scored_experts(fields, c, 1, 1408, fields.size_or_none("first_k_dense_replace", 0));
    c.experts->routing.renormalized = fields.flag("norm_topk_prob", false);
    index_t const window = fields.has("sliding_window") ? fields.size_or_none("sliding_window") : 4096;
    index_t const from = fields.size_or_none("max_window_layers", 62);
    read_windows(fields, c, window, [&](index_t layer) { return window > 0 && layer >= from; });
}

/// All layers have experts, so that there is no width of others.
DETENT_INLINE void read_solar_open(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c,
               {.kv_heads = 8,
                .head_dim = 128,
                .max_positions = 131072,
                .norm_eps = 1e-5,
                .wide = true,
                .rope_theta = 1e6,
                .rotary_share = 1});
    c.qkv_bias = fields.flag("attention_bias", false);
    read_scored_experts(fields, c, 128, 1280, 0);
}

DETENT_INLINE void read_gpt_oss(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{
        .kv_heads = 8, .head_dim = 64, .max_positions = 131072, .norm_eps = 1e-5, .rope_theta = 150000};
    read_common(fields, c, defaults);
    read_rotaries(fields, c, defaults);
    if (fields.find("rope_parameters") == nullptr && fields.find("rope_scaling") == nullptr) {
        for (auto& layer : c.layers) {
            auto& law = *layer.rotary;
            law.kind = nn::rotary_kind::yarn;
            law.factor = 32;
            law.truncate = false;
            law.original_positions = 4096;
        }
    }
    read_attention_bias(fields, c, true);
    read_experts(fields, c, 128, 4, c.intermediate);
    c.experts->router_bias = c.experts->bias = true;
    fields.ignore({"initial_context_length"}); // the original context, said again
    fields.expect("swiglu_limit", 7);
    c.gate = {.kind = nn::activation::quick_gelu, .limit = 7, .up_offset = 1};
    read_windows(fields, c, fields.size("sliding_window", 128), [](index_t layer) { return layer % 2 == 0; });
}

DETENT_INLINE tensor_names gpt_oss_names() {
    tensor_names n = expert_names();
    n.router = "mlp.router";
    n.sinks = "self_attn.sinks";
    n.fused_transposed = true;
    return n;
}

} // namespace detent::inline DETENT_ABI
