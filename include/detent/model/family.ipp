// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/io/json.hpp"
#include "detent/model/common_fields.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/family.hpp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rotary_law.hpp"

// The families of decoders. What is called "default" here are the defaults of their classes in Hugging Face
// transformers, which config.json leaves out.
namespace detent::inline DETENT_ABI {

/// The fields of LLaMA's class, which most families took over: RMSNorm, rotary positions, gated feed-forward network.
DETENT_INLINE void read_llama(configuration_fields const& fields, model_configuration& c) {
    c.norm_eps = fields.find("rms_norm_eps") == nullptr && c.norm_eps == 1e-5F ? 1e-6F : c.norm_eps;
    c.max_positions = c.max_positions == 0 ? 2048 : c.max_positions;
    c.gate.kind = nn::activation::silu;
    read_common(fields, c);
    read_rotaries(fields, c);
}

/// Biases of attention that LLaMA's switch turns on, all four or none.
DETENT_INLINE void read_attention_bias(configuration_fields const& fields, model_configuration& c, bool missing = false) {
    c.qkv_bias = c.output_bias = fields.flag("attention_bias", missing);
}

/// Qwen's windows: only where they are switched on, from one layer on.
DETENT_INLINE void read_qwen_windows(configuration_fields const& fields, model_configuration& c, index_t first) {
    bool const on = fields.flag("use_sliding_window", false);
    index_t const window = fields.size("sliding_window", 4096);
    index_t const from = fields.size_or_none("max_window_layers", first);
    read_windows(fields, c, on ? window : 0, [&](index_t layer) { return on && layer >= from; });
}

/// Rotates pairs of neighbours, not of halves.
DETENT_INLINE void interleave(model_configuration& c) {
    for (auto& layer : c.layers) {
        if (layer.rotary) {
            layer.rotary->interleaved = true;
        }
    }
}

DETENT_INLINE tensor_names llama_names() { return {}; }

/// LLaMA's names with what a family writes in other words.
template <class Change> tensor_names names_like_llama(Change const& change) {
    tensor_names n;
    change(n);
    return n;
}

/// Names of the first generation: everything after `transformer.`, in blocks called `h`.
template <class Change> tensor_names names_like_gpt2(Change const& change) {
    tensor_names n{.prefixes = {"transformer.", ""}, .embeddings = "wte", .blocks = "h.", .final_norm = "ln_f"};
    n.gate.clear();
    change(n);
    return n;
}

/// LayerNorm, a feed-forward network without a gate, biases where `bias`: the first generation.
DETENT_INLINE void make_plain(model_configuration& c, bool bias) {
    c.norm = nn::norm_kind::layer;
    c.norm_bias = true;
    c.gated = false;
    c.qkv_bias = c.output_bias = c.mlp_bias = bias;
}

/// The slopes of ALiBi (Press et al.): powers of 2^(-8/n) for n heads, n a power of two; else those of the next smaller
/// power, and then every second one of the next larger.
DETENT_INLINE std::vector<float> alibi_slopes(index_t heads) {
    auto power = index_t{1};
    while (2 * power <= heads) {
        power *= 2;
    }
    std::vector<float> slopes;
    for (index_t i = 0; i < power; ++i) {
        slopes.push_back(static_cast<float>(std::exp2(-8.0 * static_cast<double>(i + 1) / static_cast<double>(power))));
    }
    for (index_t i = 0; std::ssize(slopes) < heads; ++i) {
        slopes.push_back(
            static_cast<float>(std::exp2(-4.0 * static_cast<double>(2 * i + 1) / static_cast<double>(power))));
    }
    return slopes;
}

DETENT_INLINE void read_experts(configuration_fields const& fields, model_configuration& c, index_t count,
                                index_t per_token, index_t intermediate) {
    c.experts = expert_configuration{.count = count, .intermediate = intermediate};
    if (per_token > count) {
        throw fields.wrong("num_experts_per_tok", "is " + std::to_string(per_token) + ", more than there are experts");
    }
    c.experts->routing.experts_per_token = per_token;
    for (auto& layer : c.layers) {
        layer.experts = true;
    }
}

// ---- LLaMA and what follows it -----------------------------------------------------------------------------------

DETENT_INLINE void read_llama_family(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c);
    read_attention_bias(fields, c);
    c.mlp_bias = fields.flag("mlp_bias", false);
}

DETENT_INLINE void read_mistral(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 131072;
    read_llama(fields, c);
    c.heads.kv_heads = fields.size("num_key_value_heads", 8);
    // A missing window is 4096 tokens; only null is none.
    index_t const window = fields.has("sliding_window") ? fields.size_or_none("sliding_window") : 4096;
    read_windows(fields, c, window, [&](index_t) { return window > 0; });
}

DETENT_INLINE void read_qwen2(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 32768;
    read_llama(fields, c);
    c.qkv_bias = true;
    read_qwen_windows(fields, c, 28);
}

DETENT_INLINE void read_qwen3(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 32768;
    read_llama(fields, c);
    read_attention_bias(fields, c);
    c.query_key_norm = nn::norm_kind::rms;
    read_qwen_windows(fields, c, 28);
}

DETENT_INLINE void read_qwen3_moe(configuration_fields const& fields, model_configuration& c) {
    read_qwen3(fields, c);
    read_experts(fields, c, fields.size(fields.either({"num_experts", "num_local_experts"}), 128),
                 fields.size("num_experts_per_tok", 8), fields.size("moe_intermediate_size", 768));
    fields.ignore({"num_experts", "num_local_experts"});
    c.experts->routing.renormalized = fields.flag("norm_topk_prob", false);
    index_t const step = fields.size("decoder_sparse_step", 1);
    auto const* dense = fields.find("mlp_only_layers");
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        bool const listed = dense != nullptr && std::count(dense->begin(), dense->end(), i) > 0;
        c.layers[i].experts = !listed && (static_cast<index_t>(i) + 1) % step == 0;
    }
}

DETENT_INLINE void read_mixtral(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 131072;
    read_llama(fields, c);
    c.heads.kv_heads = fields.size("num_key_value_heads", 8);
    read_experts(fields, c, fields.size(fields.either({"num_local_experts", "num_experts"}), 8),
                 fields.size("num_experts_per_tok", 2), c.intermediate);
    c.experts->routing.renormalized = true;
    index_t const window = fields.size_or_none("sliding_window");
    read_windows(fields, c, window, [&](index_t) { return window > 0; });
}

DETENT_INLINE void read_gpt_oss(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 131072;
    c.norm_eps = 1e-5F;
    read_llama(fields, c);
    read_attention_bias(fields, c, true);
    read_experts(fields, c, fields.size(fields.either({"num_local_experts", "num_experts"}), 128),
                 fields.size(fields.either({"num_experts_per_tok", "experts_per_token"}), 4), c.intermediate);
    fields.ignore({"experts_per_token", "initial_context_length"});
    c.experts->router_bias = c.experts->bias = true;
    c.gate = {.kind = nn::activation::quick_gelu, .limit = fields.positive("swiglu_limit", 7.0), .up_offset = 1};
    index_t const window = fields.size("sliding_window", 128);
    read_windows(fields, c, window, [](index_t layer) { return layer % 2 == 0; });
}

DETENT_INLINE void read_gemma(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 8192;
    c.tied_embeddings = true;
    read_llama(fields, c);
    read_attention_bias(fields, c);
    // The first checkpoints said gelu and meant its tanh form, which later classes wrote out.
    if (fields.find("hidden_activation") == nullptr) {
        c.gate.kind = nn::activation::gelu_tanh;
    }
    c.norm_offset = 1;
    c.embedding_multiplier = static_cast<double>(std::sqrt(static_cast<float>(c.hidden)));
    if (auto const* both = fields.find("use_bidirectional_attention"); both != nullptr && *both != false) {
        throw fields.wrong("use_bidirectional_attention", "is not false, which is not supported");
    }
}

/// Gemma 2 and 3: norms around both branches, a scale of its own, windows in some layers.
DETENT_INLINE void read_later_gemma(configuration_fields const& fields, model_configuration& c) {
    read_gemma(fields, c);
    c.norms = {.input = true, .output = true};
    c.attention.scale = 1 / std::sqrt(fields.positive("query_pre_attn_scalar", 256.0));
}

DETENT_INLINE void read_gemma2(configuration_fields const& fields, model_configuration& c) {
    read_later_gemma(fields, c);
    c.attention.soft_cap = fields.has("attn_logit_softcapping") ? fields.positive("attn_logit_softcapping", 0.0) : 50;
    c.logit_cap = fields.has("final_logit_softcapping") ? fields.positive("final_logit_softcapping", 0.0) : 30;
    read_windows(fields, c, fields.size("sliding_window", 4096), [](index_t layer) { return layer % 2 == 0; });
}

DETENT_INLINE void read_gemma3(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 131072;
    read_later_gemma(fields, c);
    c.query_key_norm = nn::norm_kind::rms;
    c.attention.soft_cap = fields.positive("attn_logit_softcapping", 0.0);
    c.logit_cap = fields.positive("final_logit_softcapping", 0.0);
    index_t const pattern = fields.size(fields.either({"_sliding_window_pattern", "sliding_window_pattern"}), 6);
    fields.ignore({"sliding_window_pattern", "cache_implementation"});
    read_windows(fields, c, fields.size("sliding_window", 4096),
                 [&](index_t layer) { return (layer + 1) % pattern != 0; });
    // As transformers 4 wrote them, layers with a window have unscaled positions with a base of their own.
    if (fields.find("rope_local_base_freq") != nullptr || fields.find("rope_theta") != nullptr ||
        fields.find("rope_parameters") == nullptr) {
        for (auto& layer : c.layers) {
            if (layer.window > 0) {
                layer.rotary = nn::rotary_law{.base = fields.positive("rope_local_base_freq", 10000.0),
                                              .dimensions = c.heads.head_dim};
            } else if (fields.find("rope_theta") == nullptr) {
                layer.rotary->base = 1e6;
            }
        }
    }
}

DETENT_INLINE void read_phi3(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 4096;
    c.norm_eps = 1e-5F;
    fields.ignore({"attention_bias", "mlp_bias"}); // published beside weights without any
    read_llama(fields, c);
    index_t const window = fields.size_or_none("sliding_window");
    read_windows(fields, c, window, [&](index_t) { return window > 0; });
}

DETENT_INLINE void read_smollm3(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 32768;
    c.tied_embeddings = true;
    read_llama_family(fields, c);
    c.heads.kv_heads = fields.size("num_key_value_heads", 4);
    index_t const interval = fields.size("no_rope_layer_interval", 4);
    auto const* rotated = fields.find("no_rope_layers"); // 1 where positions are rotated, in spite of the name
    for (std::size_t i = 0; i < c.layers.size(); ++i) {
        bool const rope = rotated != nullptr && rotated->is_array() && i < rotated->size()
                              ? (*rotated)[i] != 0
                              : (static_cast<index_t>(i) + 1) % interval != 0;
        if (!rope) {
            c.layers[i].rotary.reset();
        }
    }
    bool const on = fields.flag("use_sliding_window", false);
    index_t const window = fields.size_or_none("sliding_window");
    auto const layers = c.layers;
    read_windows(fields, c, on ? window : 0,
                 [&](index_t layer) { return on && window > 0 && !layers[static_cast<std::size_t>(layer)].rotary; });
}

DETENT_INLINE void read_granite(configuration_fields const& fields, model_configuration& c) {
    read_llama_family(fields, c);
    c.embedding_multiplier = fields.positive("embedding_multiplier", 1.0);
    c.attention.scale = fields.positive("attention_multiplier", 1.0);
    c.residual_multiplier = fields.positive("residual_multiplier", 1.0);
    c.logit_multiplier = 1 / fields.positive("logits_scaling", 1.0);
}

DETENT_INLINE void read_olmo2(configuration_fields const& fields, model_configuration& c) {
    c.norm_eps = 1e-5F;
    read_llama(fields, c);
    read_attention_bias(fields, c);
    c.norms = {.input = false, .output = true};
    c.query_key_norm = nn::norm_kind::rms;
    c.head_norm = head_norm_weights::all_heads;
}

DETENT_INLINE void read_olmo3(configuration_fields const& fields, model_configuration& c) {
    read_olmo2(fields, c);
    read_windows(fields, c, fields.size("sliding_window", 4096), [](index_t layer) { return (layer + 1) % 4 != 0; });
    for (auto& layer : c.layers) {
        if (layer.window > 0) { // only what sees far is scaled
            layer.rotary->kind = nn::rotary_kind::plain;
        }
    }
}

DETENT_INLINE void read_stablelm(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 4096;
    c.norm_eps = 1e-5F;
    c.norm = nn::norm_kind::layer;
    c.norm_bias = true;
    read_llama(fields, c);
    if (fields.find("partial_rotary_factor") == nullptr && fields.find("rope_parameters") == nullptr) {
        for (auto& layer : c.layers) {
            layer.rotary->dimensions = c.heads.head_dim / 4;
        }
    }
    c.qkv_bias = fields.flag("use_qkv_bias", false);
    c.parallel = c.shared_norm = fields.flag("use_parallel_residual", false);
    fields.require("qk_layernorm", false, false);
}

DETENT_INLINE void read_cohere(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 8192;
    c.norm_eps = 1e-5F;
    c.norm = nn::norm_kind::layer;
    c.tied_embeddings = true;
    c.logit_multiplier = fields.positive("logit_scale", 0.0625);
    read_llama(fields, c);
    read_attention_bias(fields, c);
    c.parallel = c.shared_norm = true;
    interleave(c);
    if (fields.flag("use_qk_norm", false)) {
        c.query_key_norm = nn::norm_kind::layer;
        c.head_norm = head_norm_weights::each;
    }
}

DETENT_INLINE void read_cohere2(configuration_fields const& fields, model_configuration& c) {
    read_cohere(fields, c);
    index_t const pattern = fields.size(fields.either({"_sliding_window_pattern", "sliding_window_pattern"}), 4);
    fields.ignore({"sliding_window_pattern", "cache_implementation", "rotary_pct", "order_of_interleaved_layers"});
    read_windows(fields, c, fields.size("sliding_window", 4096),
                 [&](index_t layer) { return (layer + 1) % pattern != 0; });
    for (auto& layer : c.layers) {
        if (layer.window == 0) {
            layer.rotary.reset();
        }
    }
}

// ---- The first generation ----------------------------------------------------------------------------------------

DETENT_INLINE void read_opt(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048;
    c.gate.kind = nn::activation::relu;
    c.tied_embeddings = true;
    fields.ignore({"num_key_value_heads"});
    read_common(fields, c);
    make_plain(c, fields.flag("enable_bias", true));
    bool const before = fields.flag("do_layer_norm_before", true);
    c.norms = {.input = before, .sum = !before};
    c.final_norm = before && !fields.flag("_remove_final_layer_norm", false);
    fields.require("layer_norm_elementwise_affine", true, true);
    c.embedding_width = fields.size("word_embed_proj_dim", c.hidden);
    c.learned_positions = true;
    c.position_offset = 2; // of padding
}

DETENT_INLINE tensor_names opt_names() {
    tensor_names n{.prefixes = {"model.decoder.", "decoder.", ""},
                   .positions = "embed_positions",
                   .project_in = "project_in",
                   .project_out = "project_out",
                   .final_norm = "final_layer_norm",
                   .attention_norm = "self_attn_layer_norm",
                   .mlp_norm = "final_layer_norm",
                   .output = "self_attn.out_proj"};
    n.gate.clear();
    n.up = "fc1";
    n.down = "fc2";
    return n;
}

DETENT_INLINE void read_gpt2(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 1024;
    c.gate.kind = nn::activation::gelu_tanh;
    c.tied_embeddings = true;
    fields.ignore({"n_ctx", "reorder_and_upcast_attn"});
    read_common(fields, c);
    make_plain(c, true);
    c.learned_positions = true;
    if (!fields.flag("scale_attn_weights", true)) {
        c.attention.scale = 1;
    }
    fields.require("scale_attn_by_inverse_layer_idx", false, false);
    fields.require("add_cross_attention", false, false);
}

DETENT_INLINE tensor_names gpt2_names() {
    return names_like_gpt2([](tensor_names& n) {
        n.positions = "wpe";
        n.attention_norm = "ln_1";
        n.mlp_norm = "ln_2";
        n.qkv = "attn.c_attn";
        n.output = "attn.c_proj";
        n.up = "mlp.c_fc";
        n.down = "mlp.c_proj";
        n.transposed = true;
    });
}

DETENT_INLINE void read_gptj(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048;
    c.gate.kind = nn::activation::gelu_tanh;
    read_common(fields, c);
    make_plain(c, false);
    c.mlp_bias = c.head_bias = true;
    c.parallel = c.shared_norm = true;
    fields.ignore({"n_ctx"});
    read_rotaries(fields, c);
    if (!fields.has("rotary_dim")) {
        for (auto& layer : c.layers) {
            layer.rotary->dimensions = 64;
        }
    }
    interleave(c);
}

DETENT_INLINE tensor_names gptj_names() {
    return names_like_gpt2([](tensor_names& n) {
        n.attention_norm = n.mlp_norm = "ln_1";
        n.query = "attn.q_proj";
        n.key = "attn.k_proj";
        n.value = "attn.v_proj";
        n.output = "attn.out_proj";
        n.up = "mlp.fc_in";
        n.down = "mlp.fc_out";
    });
}

DETENT_INLINE void read_gpt_neox(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048;
    c.gate.kind = nn::activation::gelu;
    read_common(fields, c);
    make_plain(c, true);
    c.qkv_bias = c.output_bias = fields.flag("attention_bias", true);
    c.parallel = fields.flag("use_parallel_residual", true);
    read_rotaries(fields, c);
    if (!fields.has("rotary_pct") && !fields.has("partial_rotary_factor") && !fields.has("rope_parameters")) {
        for (auto& layer : c.layers) {
            layer.rotary->dimensions = c.heads.head_dim / 4;
        }
    }
}

/// The names that BLOOM, Falcon and GPT-NeoX have in common.
DETENT_INLINE void call_dense(tensor_names& n, std::string const& attention) {
    n.qkv = attention + ".query_key_value";
    n.qkv_order = fused_order::by_head;
    n.output = attention + ".dense";
    n.gate.clear();
    n.up = "mlp.dense_h_to_4h";
    n.down = "mlp.dense_4h_to_h";
}

DETENT_INLINE tensor_names gpt_neox_names() {
    tensor_names n{.prefixes = {"gpt_neox.", ""}, .embeddings = "embed_in", .final_norm = "final_layer_norm",
                   .head = "embed_out"};
    call_dense(n, "attention");
    return n;
}

DETENT_INLINE void read_bloom(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048; // none is built in: ALiBi knows distances only
    c.gate.kind = nn::activation::gelu_tanh;
    c.tied_embeddings = true;
    fields.ignore({"slow_but_exact", "masked_softmax_fusion", "attention_softmax_in_fp32", "bias_dropout_fusion",
                   "skip_bias_add", "skip_bias_add_qkv", "offset_alibi", "unk_token_id"});
    read_common(fields, c);
    make_plain(c, true);
    c.embedding_norm = true;
    c.attention.slopes = alibi_slopes(c.heads.heads);
    fields.require("apply_residual_connection_post_layernorm", false, false);
}

DETENT_INLINE tensor_names bloom_names() {
    return names_like_gpt2([](tensor_names& n) {
        n.embeddings = "word_embeddings";
        n.embedding_norm = "word_embeddings_layernorm";
        n.attention_norm = "input_layernorm";
        n.mlp_norm = "post_attention_layernorm";
        call_dense(n, "self_attention");
    });
}

DETENT_INLINE void read_falcon(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048;
    c.gate.kind = nn::activation::gelu;
    c.tied_embeddings = true;
    read_common(fields, c);
    make_plain(c, fields.flag("bias", false));
    bool const grouped = fields.flag("new_decoder_architecture", false);
    bool const one = fields.flag("multi_query", true);
    index_t const groups = fields.size(fields.either({"num_kv_heads", "n_head_kv"}), c.heads.heads);
    c.heads.kv_heads = grouped ? groups : one ? 1 : c.heads.heads;
    if (c.heads.heads % c.heads.kv_heads != 0) {
        throw fields.wrong("num_kv_heads", "does not divide the number of heads");
    }
    c.names.qkv_order = grouped ? fused_order::by_kv_head : one ? fused_order::stacked : fused_order::by_head;
    c.parallel = grouped || fields.flag("parallel_attn", true);
    fields.ignore({"parallel_attn"});
    c.shared_norm = c.parallel && (!grouped || fields.size("num_ln_in_parallel_attn", 2) == 1);
    fields.ignore({"num_ln_in_parallel_attn"});
    if (grouped && !c.shared_norm) {
        c.names.attention_norm = "ln_attn";
        c.names.mlp_norm = "ln_mlp";
    }
    if (fields.flag("alibi", false)) {
        // Slopes are rounded to bfloat16 there, and multiplied by the scale of the scores with them.
        c.attention.slopes = alibi_slopes(c.heads.heads);
        for (float& slope : c.attention.slopes) {
            slope = static_cast<float>(bfloat16(slope)) * static_cast<float>(c.attention.scale);
        }
        fields.ignore({"rope_theta", "rope_scaling", "rope_parameters"});
    } else {
        read_rotaries(fields, c);
    }
}

DETENT_INLINE tensor_names falcon_names() {
    return names_like_gpt2([](tensor_names& n) {
        n.embeddings = "word_embeddings";
        n.attention_norm = "input_layernorm";
        n.mlp_norm = "post_attention_layernorm";
        call_dense(n, "self_attention");
    });
}

DETENT_INLINE void read_mpt(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048;
    c.gate.kind = nn::activation::gelu;
    c.tied_embeddings = true;
    fields.ignore({"learned_pos_emb", "init_device", "verbose", "init_config", "logit_scale_unused", "fc_type"});
    read_common(fields, c);
    make_plain(c, false);
    c.norm_bias = false;
    fields.require("no_bias", true, true);
    c.intermediate = static_cast<index_t>(fields.positive("expansion_ratio", 4.0) * static_cast<double>(c.hidden));
    double bias_max = 8;
    if (auto const attention = fields.object("attn_config")) {
        attention->ignore({"attn_impl", "attn_pdrop", "attn_type", "attn_uses_sequence_id", "model_type", "_name_or_path"});
        attention->require("alibi", true, true);
        attention->require("qk_ln", false, false);
        attention->require("prefix_lm", false, false);
        bias_max = attention->positive("alibi_bias_max", 8.0);
        c.attention.scale = attention->positive("softmax_scale", c.attention.scale);
        attention->expect_all_read(); // clip_qkv among them
    }
    fields.ignore({"embedding_fraction", "norm_type"});
    auto power = index_t{1};
    while (power < c.heads.heads) {
        power *= 2;
    }
    std::vector<float> all;
    for (index_t i = 1; i <= power; ++i) {
        all.push_back(static_cast<float>(std::exp2(-bias_max * static_cast<double>(i) / static_cast<double>(power))));
    }
    if (power != c.heads.heads) { // every second slope first, then the others
        std::vector<float> const slopes = all;
        all.clear();
        for (std::size_t i = 1; i < slopes.size(); i += 2) {
            all.push_back(slopes[i]);
        }
        for (std::size_t i = 0; i < slopes.size(); i += 2) {
            all.push_back(slopes[i]);
        }
        all.resize(static_cast<std::size_t>(c.heads.heads));
    }
    c.attention.slopes = std::move(all);
}

DETENT_INLINE tensor_names mpt_names() {
    return names_like_gpt2([](tensor_names& n) {
        n.blocks = "blocks.";
        n.final_norm = "norm_f";
        n.attention_norm = "norm_1";
        n.mlp_norm = "norm_2";
        n.qkv = "attn.Wqkv";
        n.output = "attn.out_proj";
        n.up = "ffn.up_proj";
        n.down = "ffn.down_proj";
    });
}

DETENT_INLINE void read_phi(configuration_fields const& fields, model_configuration& c) {
    c.max_positions = 2048;
    c.gate.kind = nn::activation::gelu_tanh;
    read_common(fields, c);
    make_plain(c, true);
    c.head_bias = true;
    c.parallel = c.shared_norm = true;
    read_rotaries(fields, c);
    if (!fields.has("partial_rotary_factor") && !fields.has("rope_parameters")) {
        for (auto& layer : c.layers) {
            layer.rotary->dimensions = c.heads.head_dim / 2;
        }
    }
    if (fields.flag("qk_layernorm", false)) {
        c.query_key_norm = nn::norm_kind::layer;
    }
}

DETENT_INLINE tensor_names phi_names() {
    return names_like_llama([](tensor_names& n) {
        n.final_norm = "final_layernorm";
        n.mlp_norm = "input_layernorm";
        n.query_norm = "self_attn.q_layernorm";
        n.key_norm = "self_attn.k_layernorm";
        n.output = "self_attn.dense";
        n.gate.clear();
        n.up = "mlp.fc1";
        n.down = "mlp.fc2";
    });
}

// ---- The table -----------------------------------------------------------------------------------------------------

DETENT_INLINE tensor_names gemma2_names() {
    return names_like_llama([](tensor_names& n) {
        n.attention_output_norm = "post_attention_layernorm";
        n.mlp_norm = "pre_feedforward_layernorm";
        n.mlp_output_norm = "post_feedforward_layernorm";
    });
}

DETENT_INLINE tensor_names olmo2_names() {
    return names_like_llama([](tensor_names& n) {
        n.attention_output_norm = "post_attention_layernorm";
        n.mlp_output_norm = "post_feedforward_layernorm";
    });
}

DETENT_INLINE tensor_names phi3_names() {
    return names_like_llama([](tensor_names& n) {
        n.qkv = "self_attn.qkv_proj";
        n.gate_up = "mlp.gate_up_proj";
    });
}

DETENT_INLINE tensor_names shared_norm_names() {
    return names_like_llama([](tensor_names& n) { n.mlp_norm = n.attention_norm; });
}

DETENT_INLINE tensor_names expert_names() {
    return names_like_llama([](tensor_names& n) {
        n.router = "mlp.gate";
        n.experts = "mlp.experts.";
        n.fused_gate_up = "mlp.experts.gate_up_proj";
        n.fused_down = "mlp.experts.down_proj";
    });
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

DETENT_INLINE tensor_names gpt_oss_names() {
    tensor_names n = expert_names();
    n.router = "mlp.router";
    n.sinks = "self_attn.sinks";
    n.fused_transposed = true;
    return n;
}

DETENT_INLINE std::span<decoder_family const> families() {
    static constexpr std::array table{
        decoder_family{"llama", llama_names, read_llama_family},
        decoder_family{"mistral", llama_names, read_mistral},
        decoder_family{"ministral", llama_names, read_mistral},
        decoder_family{"mixtral", mixtral_names, read_mixtral},
        decoder_family{"qwen2", llama_names, read_qwen2},
        decoder_family{"qwen3", llama_names, read_qwen3},
        decoder_family{"qwen3_moe", expert_names, read_qwen3_moe},
        decoder_family{"gemma", llama_names, read_gemma},
        decoder_family{"gemma2", gemma2_names, read_gemma2},
        decoder_family{"gemma3_text", gemma2_names, read_gemma3},
        decoder_family{"phi", phi_names, read_phi},
        decoder_family{"phi3", phi3_names, read_phi3},
        decoder_family{"smollm3", llama_names, read_smollm3},
        decoder_family{"granite", llama_names, read_granite},
        decoder_family{"olmo2", olmo2_names, read_olmo2},
        decoder_family{"olmo3", olmo2_names, read_olmo3},
        decoder_family{"stablelm", llama_names, read_stablelm},
        decoder_family{"cohere", shared_norm_names, read_cohere},
        decoder_family{"cohere2", shared_norm_names, read_cohere2},
        decoder_family{"gpt_oss", gpt_oss_names, read_gpt_oss},
        decoder_family{"opt", opt_names, read_opt},
        decoder_family{"gpt2", gpt2_names, read_gpt2},
        decoder_family{"gptj", gptj_names, read_gptj},
        decoder_family{"gpt_neox", gpt_neox_names, read_gpt_neox},
        decoder_family{"bloom", bloom_names, read_bloom},
        decoder_family{"falcon", falcon_names, read_falcon},
        decoder_family{"mpt", mpt_names, read_mpt},
    };
    return table;
}

} // namespace detent::inline DETENT_ABI
