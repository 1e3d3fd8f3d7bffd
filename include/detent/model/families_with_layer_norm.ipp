// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/model/common_fields.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/families_like_llama.ipp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/norm.hpp"

// Families like LLaMA that normalize with LayerNorm. Numbers are the defaults of their classes in Hugging Face
// transformers.
namespace detent::inline DETENT_ABI {

DETENT_INLINE void read_stablelm(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.kv_heads = 32, .max_positions = 4096, .norm_eps = 1e-5, .rotary_share = 0.25});
    make_layer_norm(c);
    c.qkv_bias = fields.flag("use_qkv_bias", false);
    c.parallel = c.shared_norm = fields.flag("use_parallel_residual", false);
    fields.require("qk_layernorm", false, false); // whose weights are one tensor for each head
}

DETENT_INLINE void read_starcoder2(configuration_fields const& fields, model_configuration& c) {
    fields.ignore({"activation_function"}); // what the training called it in other words
    fields.expect("mlp_type", "default");
    fields.expect("norm_type", "layer_norm");
    read_llama(fields, c,
               {.kv_heads = 2,
                .max_positions = 4096,
                .norm_eps = 1e-5,
                .activation = nn::activation::gelu_tanh,
                .activation_field = "hidden_act",
                .tied = true});
    make_layer_norm(c);
    c.gated = false;
    c.qkv_bias = c.output_bias = c.mlp_bias = fields.flag("use_bias", true);
    read_window(fields, c);
}

DETENT_INLINE tensor_names starcoder2_names() {
    return names_like_llama([](tensor_names& n) {
        n.gate.clear();
        n.up = "mlp.c_fc";
        n.down = "mlp.c_proj";
    });
}

/// LayerNorm of weights around 0.
DETENT_INLINE void read_nemotron(configuration_fields const& fields, model_configuration& c) {
    read_llama_biases(
        fields, c,
        {.max_positions = 4096, .norm_eps = 1e-5, .activation = nn::activation::relu_squared, .rotary_share = 0.5});
    make_layer_norm(c);
    c.norm_offset = 1;
    remove_gate(c);
}

DETENT_INLINE void read_jais2(configuration_fields const& fields, model_configuration& c) {
    read_llama(fields, c, {.max_positions = 8192, .norm_eps = 1e-5, .activation = nn::activation::relu_squared});
    make_layer_norm(c);
    read_attention_bias(fields, c, true);
    c.mlp_bias = fields.flag("mlp_bias", true);
    remove_gate(c);
}

DETENT_INLINE void read_cohere_parts(configuration_fields const& fields, model_configuration& c, double rope_theta) {
    read_llama(fields, c, {.max_positions = 8192, .norm_eps = 1e-5, .tied = true, .rope_theta = rope_theta});
    c.norm = nn::norm_kind::layer;
    c.logit_multiplier = fields.positive("logit_scale", 0.0625);
    read_attention_bias(fields, c);
    c.parallel = c.shared_norm = true;
    interleave(c);
}

DETENT_INLINE void read_cohere(configuration_fields const& fields, model_configuration& c) {
    read_cohere_parts(fields, c, 500000);
    if (fields.flag("use_qk_norm", false)) {
        c.query_key_norm = nn::norm_kind::layer;
        c.head_norm = head_norm_weights::each;
    }
}

DETENT_INLINE void read_cohere2(configuration_fields const& fields, model_configuration& c) {
    read_cohere_parts(fields, c, 10000);
    index_t const pattern = fields.size("sliding_window_pattern", 4);
    if (fields.find("layer_types") == nullptr && fields.find("sliding_window_pattern") == nullptr) {
        fields.expect("_sliding_window_pattern", pattern); // a note that does not count
    }
    fields.ignore({"_sliding_window_pattern"});
    fields.require("use_qk_norm", false, false);
    fields.expect("order_of_interleaved_layers", "local_attn_first");
    fields.expect("layer_switch", pattern);
    fields.expect("position_embedding_type", "rope_gptj");
    for (auto const* field : {"use_gated_activation", "use_parallel_block"}) {
        fields.require(field, true, true);
    }
    fields.ignore({"use_embedding_sharing", "use_parallel_embedding"}); // said again, and how it was trained
    read_windows(fields, c, fields.size("sliding_window", 4096),
                 [&](index_t layer) { return (layer + 1) % pattern != 0; });
    for (auto& layer : c.layers) {
        if (layer.window == 0) {
            layer.rotary.reset();
        }
    }
}

DETENT_INLINE tensor_names shared_norm_names() {
    return names_like_llama([](tensor_names& n) { n.mlp_norm = n.attention_norm; });
}

} // namespace detent::inline DETENT_ABI
