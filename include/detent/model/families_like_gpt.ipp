// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/io/json.hpp"
#include "detent/model/common_fields.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/configuration_fields.hpp"
#include "detent/model/families_like_llama.ipp"
#include "detent/model/tensor_names.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rotary_law.hpp"

// GPT-2 and what follows it: LayerNorm, feed-forward networks without a gate, positions of many kinds. Numbers are the
// defaults of their classes in Hugging Face transformers.
namespace detent::inline DETENT_ABI {

/// LayerNorm, a feed-forward network without a gate, biases where `bias`: the first generation.
DETENT_INLINE void make_plain(model_configuration& c, bool bias) {
    make_layer_norm(c);
    c.gated = false;
    c.qkv_bias = c.output_bias = c.mlp_bias = bias;
}

/// Names of the first generation: everything after `transformer.`, in blocks called `h`.
template <class Change> tensor_names names_like_gpt2(Change const& change) {
    tensor_names n{.prefixes = {"transformer.", ""}, .embeddings = "wte", .blocks = "h.", .final_norm = "ln_f"};
    n.gate.clear();
    change(n);
    return n;
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

DETENT_INLINE void read_opt(configuration_fields const& fields, model_configuration& c) {
    read_common(fields, c, {.norm_eps = 1e-5, .activation = nn::activation::relu, .tied = true});
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

/// What GPT-2 and its next of kin have in common.
DETENT_INLINE void read_gpt2_parts(configuration_fields const& fields, model_configuration& c,
                                   nn::activation activation) {
    fields.ignore({"n_ctx", "reorder_and_upcast_attn"}); // the context said again; the order of the same operations
    read_common(fields, c,
                {.max_positions = 1024, .norm_eps = 1e-5, .activation = activation, .tied = true, .wide = true});
    make_plain(c, true);
    c.learned_positions = true;
    if (!fields.flag("scale_attn_weights", true)) {
        c.attention.scale = 1;
    }
    fields.require("add_cross_attention", false, false);
}

DETENT_INLINE void read_gpt2(configuration_fields const& fields, model_configuration& c) {
    read_gpt2_parts(fields, c, nn::activation::gelu_tanh);
    bool const divided = fields.flag("scale_attn_by_inverse_layer_idx", false);
    for (std::size_t i = 0; divided && i < c.layers.size(); ++i) {
        c.layers[i].score_divisor = static_cast<double>(i + 1);
    }
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

/// StarCoder: one head of keys and values for all queries, or as many as there are queries, each behind its query.
DETENT_INLINE void read_gpt_bigcode(configuration_fields const& fields, model_configuration& c) {
    read_gpt2_parts(fields, c, nn::activation::gelu_tanh);
    fields.ignore({"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"}); // what is float here anyway
    bool const one = fields.flag("multi_query", true);
    fields.ignore({"num_key_value_heads"}); // follows from that
    fields.ignore({"inference_runner", "max_batch_size", "pad_key_length", "pre_allocate_kv_cache",
                   "validate_runner_input"}); // of another program
    c.heads.kv_heads = one ? 1 : c.heads.heads;
    c.names.qkv_order = one ? fused_order::stacked : fused_order::by_head;
}

DETENT_INLINE tensor_names gpt_bigcode_names() {
    tensor_names n = gpt2_names();
    n.transposed = false;
    return n;
}

/// The types of layers of GPT-Neo, as lists of them and how often each is repeated.
DETENT_INLINE std::vector<std::string> read_attention_types(configuration_fields const& fields) {
    auto const* given = fields.find("attention_types");
    nlohmann::json const all = given != nullptr ? *given : nlohmann::json::parse(R"([[["global", "local"], 12]])");
    std::vector<std::string> types;
    try {
        for (auto const& repeated : all) {
            for (int i = 0; i < repeated.at(1).get<int>() && types.size() < (std::size_t{1} << 16); ++i) {
                auto const some = repeated.at(0).get<std::vector<std::string>>();
                types.insert(types.end(), some.begin(), some.end());
            }
        }
    } catch (nlohmann::json::exception const&) {
        throw fields.wrong("attention_types", "is no list of types of layers and how often they are repeated");
    }
    return types;
}

/// Scores are not scaled, and every second layer sees a window.
DETENT_INLINE void read_gpt_neo(configuration_fields const& fields, model_configuration& c) {
    read_common(fields, c, {.norm_eps = 1e-5, .activation = nn::activation::gelu_tanh, .tied = true, .wide = true});
    make_plain(c, true);
    c.qkv_bias = false;
    c.learned_positions = true;
    c.attention.scale = 1;
    index_t const window = fields.size("window_size", 256);
    auto const types = read_attention_types(fields);
    if (types.size() != c.layers.size()) {
        throw fields.wrong("attention_types",
                           "says " + std::to_string(types.size()) + " layers of " + std::to_string(c.layers.size()));
    }
    fields.expect("attention_layers", types); // said again
    for (std::size_t i = 0; i < types.size(); ++i) {
        if (types[i] != "global" && types[i] != "local") {
            throw fields.wrong("attention_types", "holds '" + io::printable(types[i]) + "', which is not supported");
        }
        c.layers[i].window = types[i] == "local" ? window : 0;
    }
}

DETENT_INLINE tensor_names gpt_neo_names() {
    return names_like_gpt2([](tensor_names& n) {
        n.positions = "wpe";
        n.attention_norm = "ln_1";
        n.mlp_norm = "ln_2";
        n.query = "attn.attention.q_proj";
        n.key = "attn.attention.k_proj";
        n.value = "attn.attention.v_proj";
        n.output = "attn.attention.out_proj";
        n.up = "mlp.c_fc";
        n.down = "mlp.c_proj";
    });
}

DETENT_INLINE void read_gptj(configuration_fields const& fields, model_configuration& c) {
    read_common(fields, c, {.norm_eps = 1e-5, .activation = nn::activation::gelu_tanh, .wide = true});
    make_plain(c, false);
    c.mlp_bias = c.head_bias = true;
    fields.require("tie_word_embeddings", false, false); // the head has a bias of its own
    c.parallel = c.shared_norm = true;
    fields.ignore({"n_ctx"}); // the context said again
    for (auto const* field : {"rotary", "scale_attn_weights"}) {
        fields.require(field, true, true);
    }
    for (auto& layer : c.layers) {
        layer.rotary =
            nn::rotary_law{.dimensions = fields.size("rotary_dim", 64), .interleaved = true, .max_positions = 0};
    }
    expect_rotated_pairs(fields, c);
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
    family_defaults const defaults{.norm_eps = 1e-5, .activation = nn::activation::gelu, .rotary_share = 0.25};
    read_common(fields, c, defaults);
    make_plain(c, true);
    c.qkv_bias = c.output_bias = fields.flag("attention_bias", true);
    c.parallel = fields.flag("use_parallel_residual", true);
    read_rotaries(fields, c, defaults);
}

/// The names that BLOOM, Falcon, GPT-NeoX and Persimmon have in common.
DETENT_INLINE void call_dense(tensor_names& n, std::string const& attention) {
    n.qkv = attention + ".query_key_value";
    n.qkv_order = fused_order::by_head;
    n.output = attention + ".dense";
    n.gate.clear();
    n.up = "mlp.dense_h_to_4h";
    n.down = "mlp.dense_4h_to_h";
}

DETENT_INLINE tensor_names gpt_neox_names() {
    tensor_names n{
        .prefixes = {"gpt_neox.", ""}, .embeddings = "embed_in", .final_norm = "final_layer_norm", .head = "embed_out"};
    call_dense(n, "attention");
    return n;
}

DETENT_INLINE void read_persimmon(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{
        .max_positions = 16384, .norm_eps = 1e-5, .activation = nn::activation::relu_squared, .rotary_share = 0.5};
    read_common(fields, c, defaults);
    make_plain(c, true);
    read_rotaries(fields, c, defaults);
    if (fields.flag("qk_layernorm", true)) {
        c.query_key_norm = nn::norm_kind::layer;
    }
}

DETENT_INLINE tensor_names persimmon_names() {
    return names_like_llama([](tensor_names& n) {
        call_dense(n, "self_attn");
        n.final_norm = "final_layernorm";
        n.query_norm = "self_attn.q_layernorm";
        n.key_norm = "self_attn.k_layernorm";
    });
}

DETENT_INLINE void read_phi(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{.norm_eps = 1e-5, .activation = nn::activation::gelu_tanh, .rotary_share = 0.5};
    read_common(fields, c, defaults);
    make_plain(c, true);
    c.head_bias = true;
    fields.require("tie_word_embeddings", false, false); // the head has a bias of its own
    c.parallel = c.shared_norm = true;
    read_rotaries(fields, c, defaults);
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

/// ALiBi knows distances only, so that sequences may be longer than those of the training.
DETENT_INLINE void read_slopes(model_configuration& c, std::vector<float> slopes) {
    c.attention.slopes = std::move(slopes);
    c.any_length = true;
}

DETENT_INLINE void read_bloom(configuration_fields const& fields, model_configuration& c) {
    fields.ignore({"masked_softmax_fusion", "attention_softmax_in_fp32", "bias_dropout_fusion", "skip_bias_add",
                   "skip_bias_add_qkv", "offset_alibi", "seq_length"}); // how it was trained
    // Exactness of another kind: its tensor-parallel layers, one after the other, without a bias.
    if (fields.flag("slow_but_exact", false) && fields.size("pretraining_tp", 1) > 1) {
        throw fields.wrong("slow_but_exact", "is true, which is not supported where pretraining_tp is not 1");
    }
    read_common(fields, c, {.norm_eps = 1e-5, .activation = nn::activation::gelu_tanh, .tied = true, .wide = true});
    fields.expect("n_inner", 4 * c.hidden); // whatever that says
    make_plain(c, true);
    c.embedding_norm = true;
    read_slopes(c, alibi_slopes(c.heads.heads));
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

/// Which heads Falcon's layers have, and how the rows of their one tensor are ordered.
DETENT_INLINE void read_falcon_heads(configuration_fields const& fields, model_configuration& c, bool grouped) {
    bool const one = fields.flag("multi_query", true);
    index_t const groups = fields.size(fields.either({"num_kv_heads", "n_head_kv"}), c.heads.heads);
    c.heads.kv_heads = grouped ? groups : one ? 1 : c.heads.heads;
    if (c.heads.heads % c.heads.kv_heads != 0) {
        throw fields.wrong("num_kv_heads", "does not divide the number of heads");
    }
    c.names.qkv_order = grouped ? fused_order::by_kv_head : one ? fused_order::stacked : fused_order::by_head;
}

/// Falcon's slopes are rounded to bfloat16, and multiplied by the scale of the scores with them. The eager attention of
/// transformers 5 adds them to the mask and then to the scores again, so that they count twice; its other attention
/// (sdpa), earlier versions, and the code that the models were trained with add them once.
DETENT_INLINE std::vector<float> falcon_slopes(configuration_fields const& fields, model_configuration const& c) {
    auto slopes = alibi_slopes(c.heads.heads);
    for (float& slope : slopes) {
        slope = static_cast<float>(bfloat16(slope)) * static_cast<float>(c.attention.scale) *
                (is_of_transformers_5(fields) ? 2.0F : 1.0F);
    }
    return slopes;
}

DETENT_INLINE void read_falcon(configuration_fields const& fields, model_configuration& c) {
    family_defaults const defaults{.norm_eps = 1e-5, .activation = nn::activation::gelu, .tied = true, .wide = true};
    read_common(fields, c, defaults);
    make_plain(c, fields.flag("bias", false));
    fields.expect("ff_factor", c.intermediate / c.hidden); // said again
    bool const grouped = fields.flag("new_decoder_architecture", false);
    read_falcon_heads(fields, c, grouped);
    if (grouped) {
        fields.require("parallel_attn", true, true);
    }
    c.parallel = fields.flag("parallel_attn", true);
    index_t const norms = fields.size("num_ln_in_parallel_attn", grouped ? 2 : 1, 2);
    if (!grouped && norms == 2) {
        throw fields.wrong("num_ln_in_parallel_attn", "is 2, which needs new_decoder_architecture");
    }
    c.shared_norm = c.parallel && norms == 1;
    if (norms == 2) {
        c.names.attention_norm = "ln_attn";
        c.names.mlp_norm = "ln_mlp";
    }
    fields.require("apply_residual_connection_post_layernorm", false, false);
    if (fields.flag("alibi", false)) {
        read_slopes(c, falcon_slopes(fields, c));
        fields.ignore({"rope_theta", "rope_scaling", "rope_parameters"}); // nothing is rotated
    } else {
        read_rotaries(fields, c, defaults);
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

/// MPT's slopes for a number of heads that is no power of two: of those of the next one every second first, then the
/// others.
DETENT_INLINE std::vector<float> mpt_slopes(index_t heads) {
    auto power = index_t{1};
    while (power < heads) {
        power *= 2;
    }
    auto const all = alibi_slopes(power);
    std::vector<float> slopes;
    for (std::size_t const first : {std::size_t{1}, std::size_t{0}}) {
        for (std::size_t i = first; i < all.size(); i += 2) {
            slopes.push_back(all[i]);
        }
    }
    slopes.resize(static_cast<std::size_t>(heads));
    return power == heads ? all : slopes;
}

/// Of the switches of the code that MPT was trained with, transformers has one setting each.
DETENT_INLINE void read_mpt(configuration_fields const& fields, model_configuration& c) {
    // Positions are ALiBi's; the share of the gradient that reaches the embeddings does not change them.
    fields.ignore({"learned_pos_emb", "embedding_fraction", "init_device", "verbose", "init_config"});
    read_common(fields, c, {.norm_eps = 1e-5, .activation = nn::activation::gelu, .tied = true, .wide = true});
    make_plain(c, false);
    c.norm_bias = false;
    fields.require("no_bias", true, true);
    fields.expect("expansion_ratio", 4);
    fields.expect("logit_scale", nullptr);
    fields.expect("fc_type", "torch");
    if (!fields.text("norm_type", "low_precision_layernorm").ends_with("layernorm")) {
        throw fields.wrong("norm_type", "is no layernorm, which is not supported");
    }
    if (auto const attention = fields.object("attn_config")) {
        attention->ignore({"attn_impl", "attn_pdrop", "model_type", "_name_or_path"});
        attention->expect("attn_type", "multihead_attention");
        attention->expect("alibi_bias_max", 8);
        attention->require("alibi", true, true);
        for (auto const* field : {"qk_ln", "prefix_lm", "attn_uses_sequence_id"}) {
            attention->require(field, false, false);
        }
        c.attention.scale = attention->positive("softmax_scale", c.attention.scale);
        attention->expect_all_read(); // clip_qkv among them
    }
    read_slopes(c, mpt_slopes(c.heads.heads));
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

} // namespace detent::inline DETENT_ABI
