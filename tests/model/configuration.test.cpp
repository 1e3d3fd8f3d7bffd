// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/text_file.hpp"
#include "detent/model/configuration.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace detent {

namespace {

/// The fields that no family has defaults for.
nlohmann::json minimal(std::string const& type) {
    nlohmann::json json{{"model_type", type},
                        {"vocab_size", 100},
                        {"hidden_size", 64},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 8}};
    json[type == "opt" ? "ffn_dim" : "intermediate_size"] = 160;
    return json;
}

model_configuration parse(std::string const& type, char const* patch = "{}") {
    auto json = minimal(type);
    json.merge_patch(nlohmann::json::parse(patch));
    return parse_configuration(json, "f");
}

/// merge_patch would remove a field that is to be null.
model_configuration parse_null(std::string const& type, char const* field) {
    auto json = minimal(type);
    json[field] = nullptr;
    return parse_configuration(json, "f");
}

std::string message(nlohmann::json const& json) {
    try {
        parse_configuration(json, "f");
    } catch (error const& e) {
        return e.what();
    }
    return "no error";
}

struct wrong_field {
    char const* type;
    char const* patch; // merged into the minimal configuration; null removes
    char const* message;
};

void expect_errors(std::vector<wrong_field> const& all) {
    for (auto const& w : all) {
        auto json = minimal(w.type);
        json.merge_patch(nlohmann::json::parse(w.patch));
        EXPECT_EQ(message(json), w.message) << w.type << " " << w.patch;
    }
}

} // namespace

TEST(configuration, missing_fields_take_the_defaults_of_the_family) {
    auto const llama = parse("llama");
    EXPECT_EQ(llama.type, "llama");
    EXPECT_EQ(llama.heads.kv_heads, 8);
    EXPECT_EQ(llama.heads.head_dim, 8);
    EXPECT_EQ(llama.max_positions, 2048);
    EXPECT_EQ(llama.norm_eps, 1e-6F);
    EXPECT_EQ(llama.layers.front().rotary->base, 10000.0);
    EXPECT_FALSE(llama.tied_embeddings || llama.qkv_bias || llama.output_bias || llama.mlp_bias);
    EXPECT_TRUE(llama.end_of_text.empty());
    EXPECT_EQ(llama.gate.kind, nn::activation::silu);

    auto const mistral = parse_null("mistral", "sliding_window");
    EXPECT_EQ(mistral.heads.kv_heads, 8);
    EXPECT_EQ(mistral.max_positions, 131072);
    EXPECT_EQ(mistral.layers.front().window, 0);
    EXPECT_EQ(parse("mistral").layers.front().window, 4096);

    auto const qwen2 = parse("qwen2", R"({"num_key_value_heads": 4})");
    EXPECT_TRUE(qwen2.qkv_bias);
    EXPECT_FALSE(qwen2.output_bias || qwen2.mlp_bias);
    EXPECT_EQ(qwen2.max_positions, 32768);

    auto const opt = parse("opt");
    EXPECT_EQ(opt.type, "opt");
    EXPECT_EQ(opt.gate.kind, nn::activation::relu);
    EXPECT_EQ(opt.norm_eps, 1e-5F);
    EXPECT_EQ(opt.intermediate, 160);
    EXPECT_TRUE(opt.tied_embeddings && opt.qkv_bias && opt.output_bias && opt.mlp_bias);
}

TEST(configuration, every_family_has_the_defaults_of_its_class_in_transformers) {
    struct numbers {
        char const* type;
        index_t positions;
        double eps;
        double theta;
        index_t rotated; // of 16 features
        bool tied;
        nn::activation kind;
    };
    using enum nn::activation;
    for (auto const& n : std::vector<numbers>{{"llama", 2048, 1e-6, 1e4, 16, false, silu},
                                              {"mistral", 131072, 1e-6, 1e4, 16, false, silu},
                                              {"ministral", 131072, 1e-6, 1e4, 16, false, silu},
                                              {"mixtral", 131072, 1e-5, 1e6, 16, false, silu},
                                              {"qwen2", 32768, 1e-6, 1e4, 16, false, silu},
                                              {"qwen2_moe", 32768, 1e-6, 1e4, 16, false, silu},
                                              {"qwen3", 32768, 1e-6, 1e4, 16, false, silu},
                                              {"qwen3_moe", 32768, 1e-6, 1e4, 16, false, silu},
                                              {"gemma", 8192, 1e-6, 1e4, 16, true, gelu_tanh},
                                              {"gemma2", 8192, 1e-6, 1e4, 16, true, gelu_tanh},
                                              {"gemma3_text", 131072, 1e-6, 1e4, 16, true, gelu_tanh},
                                              {"vaultgemma", 8192, 1e-6, 1e4, 16, true, gelu_tanh},
                                              {"phi", 2048, 1e-5, 1e4, 8, false, gelu_tanh},
                                              {"phi3", 4096, 1e-5, 1e4, 16, false, silu},
                                              {"smollm3", 32768, 1e-6, 2e6, 16, true, silu},
                                              {"granite", 2048, 1e-6, 1e4, 16, false, silu},
                                              {"granitemoe", 2048, 1e-6, 1e4, 16, false, silu},
                                              {"olmo", 2048, 1e-5, 1e4, 16, false, silu},
                                              {"olmo2", 2048, 1e-5, 1e4, 16, false, silu},
                                              {"olmo3", 2048, 1e-5, 1e4, 16, false, silu},
                                              {"olmoe", 4096, 1e-5, 1e4, 16, false, silu},
                                              {"flex_olmo", 4096, 1e-6, 5e5, 16, false, silu},
                                              {"exaone4", 2048, 1e-5, 1e4, 16, false, silu},
                                              {"arcee", 4096, 1e-5, 1e4, 16, false, relu_squared},
                                              {"ernie4_5", 131072, 1e-5, 5e5, 16, true, silu},
                                              {"glm", 131072, 1.5625e-7, 1e4, 8, false, silu},
                                              {"glm4", 131072, 1.5625e-7, 1e4, 8, false, silu},
                                              {"helium", 4096, 1e-8, 1e5, 16, false, silu},
                                              {"seed_oss", 524288, 1e-6, 1e4, 16, false, silu},
                                              {"stablelm", 4096, 1e-5, 1e4, 4, false, silu},
                                              {"starcoder2", 4096, 1e-5, 1e4, 16, true, gelu_tanh},
                                              {"nemotron", 4096, 1e-5, 1e4, 8, false, relu_squared},
                                              {"jais2", 8192, 1e-5, 1e4, 16, false, relu_squared},
                                              {"cohere", 8192, 1e-5, 5e5, 16, true, silu},
                                              {"cohere2", 8192, 1e-5, 1e4, 16, true, silu},
                                              {"gpt_oss", 131072, 1e-5, 1.5e5, 16, false, quick_gelu},
                                              {"gpt_neox", 2048, 1e-5, 1e4, 4, false, gelu},
                                              {"persimmon", 16384, 1e-5, 1e4, 8, false, relu_squared},
                                              {"falcon", 2048, 1e-5, 1e4, 16, true, gelu}}) {
        // Layers of both kinds have the same positions here; where some have none, the first has some.
        auto const c = parse(n.type, R"({"head_dim": 16, "num_key_value_heads": 4, "num_attention_heads": 4})");
        EXPECT_EQ(c.max_positions, n.positions) << n.type;
        EXPECT_EQ(c.norm_eps, static_cast<float>(n.eps)) << n.type;
        ASSERT_TRUE(c.layers.front().rotary) << n.type;
        EXPECT_EQ(c.layers.front().rotary->base, n.theta) << n.type;
        EXPECT_EQ(c.layers.front().rotary->dimensions, n.rotated) << n.type;
        EXPECT_EQ(c.tied_embeddings, n.tied) << n.type;
        EXPECT_EQ(c.gate.kind, n.kind) << n.type;
    }
    EXPECT_EQ(parse("qwen3", R"({"num_key_value_heads": 4})").heads.head_dim, 128);
    EXPECT_EQ(parse("gemma", R"({"num_key_value_heads": 4})").heads.head_dim, 256);
    EXPECT_EQ(parse("gpt_oss").heads.head_dim, 64);
    EXPECT_EQ(parse("gpt_oss").heads.kv_heads, 8);
    EXPECT_EQ(parse("smollm3").heads.kv_heads, 4);
    EXPECT_EQ(parse("gemma2").heads.kv_heads, 4);
    EXPECT_EQ(parse_null("gemma2", "num_key_value_heads").heads.kv_heads, 8);
    EXPECT_EQ(parse_null("gemma2", "head_dim").heads.head_dim, 8);
    EXPECT_EQ(parse("gemma2").attention.soft_cap, 50);
    EXPECT_EQ(parse("gemma2").logit_cap, 30);
    EXPECT_EQ(parse_null("gemma2", "attn_logit_softcapping").attention.soft_cap, 0);
    EXPECT_EQ(parse("gemma2").attention.scale, 1.0 / 16);
    EXPECT_EQ(parse("gemma2").layers[0].window, 4096);
    EXPECT_EQ(parse("gemma2").layers[1].window, 0);
    EXPECT_EQ(parse("cohere").logit_multiplier, 0.0625);
    EXPECT_EQ(parse("gpt_oss").layers[0].rotary->factor, 32);
    EXPECT_FALSE(parse("gpt_oss").layers[0].rotary->truncate);
    EXPECT_EQ(parse("gptj", R"({"num_attention_heads": 1})").layers.front().rotary->dimensions, 64);
}

TEST(configuration, fields_are_read) {
    auto json = minimal("llama");
    json.merge_patch({{"num_key_value_heads", 2},
                      {"head_dim", 12},
                      {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}},
                      {"attention_bias", true},
                      {"mlp_bias", true},
                      {"tie_word_embeddings", true},
                      {"max_position_embeddings", 77},
                      {"rms_norm_eps", 0.25},
                      {"eos_token_id", {3, 4}}});
    auto const c = parse_configuration(json, "f");
    EXPECT_EQ(c.heads.kv_heads, 2);
    EXPECT_EQ(c.heads.head_dim, 12);
    EXPECT_EQ(c.layers.front().rotary->base, 5e5);
    EXPECT_TRUE(c.tied_embeddings && c.qkv_bias && c.output_bias && c.mlp_bias);
    EXPECT_EQ(c.max_positions, 77);
    EXPECT_EQ(c.norm_eps, 0.25F);
    EXPECT_EQ(c.end_of_text, (std::vector<index_t>{3, 4}));
    EXPECT_EQ(c.vocabulary, 100);
    EXPECT_EQ(c.hidden, 64);
    EXPECT_EQ(c.layers.size(), 2U);

    json["rope_parameters"] = nullptr;
    json["rope_theta"] = 123.0;
    EXPECT_EQ(parse_configuration(json, "f").layers.front().rotary->base, 123.0);
    json["eos_token_id"] = {-1, 100, 7}; // -1 and what is outside the vocabulary are said for none
    EXPECT_EQ(parse_configuration(json, "f").end_of_text, (std::vector<index_t>{7}));

    for (auto const& [name, kind] : {std::pair{"gelu", nn::activation::gelu},
                                     {"gelu_new", nn::activation::gelu_tanh},
                                     {"relu", nn::activation::relu}}) {
        auto opt = minimal("opt");
        opt["activation_function"] = name;
        opt["enable_bias"] = false;
        EXPECT_EQ(parse_configuration(opt, "f").gate.kind, kind);
        EXPECT_FALSE(parse_configuration(opt, "f").mlp_bias);
    }
}

TEST(configuration, a_window_that_never_slides_is_accepted) {
    EXPECT_EQ(parse("mistral", R"({"max_position_embeddings": 4096})").layers.front().window, 4096);
    EXPECT_EQ(parse("qwen2", R"({"sliding_window": 128, "num_key_value_heads": 8})").layers.front().window, 0);
}

TEST(configuration, switches_change_what_they_say) {
    auto const qwen2 =
        parse("qwen2",
              R"({"num_key_value_heads": 8, "use_sliding_window": true, "sliding_window": 9, "max_window_layers": 1})");
    EXPECT_EQ(qwen2.layers[0].window, 0);
    EXPECT_EQ(qwen2.layers[1].window, 9);

    auto const moe = parse("qwen3_moe", R"({"num_key_value_heads": 8, "num_experts": 6, "num_experts_per_tok": 3,
        "moe_intermediate_size": 32, "decoder_sparse_step": 2, "norm_topk_prob": true, "use_sliding_window": true,
        "sliding_window": 9, "max_window_layers": 1})");
    EXPECT_FALSE(moe.layers[0].experts);
    EXPECT_TRUE(moe.layers[1].experts);
    EXPECT_EQ(moe.experts->count, 6);
    EXPECT_EQ(moe.experts->intermediate, 32);
    EXPECT_EQ(moe.experts->routing.experts_per_token, 3);
    EXPECT_TRUE(moe.experts->routing.renormalized);
    EXPECT_EQ(moe.layers[0].window, 9) << "its layers have one window";

    auto const gemma3 = parse("gemma3_text", R"({"num_key_value_heads": 8, "sliding_window_pattern": 2,
        "sliding_window": 9, "rope_theta": 2e6, "rope_local_base_freq": 2e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}})");
    EXPECT_EQ(gemma3.layers[0].window, 9);
    EXPECT_EQ(gemma3.layers[0].rotary->base, 2e4);
    EXPECT_EQ(gemma3.layers[0].rotary->kind, nn::rotary_kind::plain);
    EXPECT_EQ(gemma3.layers[1].window, 0);
    EXPECT_EQ(gemma3.layers[1].rotary->base, 2e6);
    EXPECT_EQ(gemma3.layers[1].rotary->kind, nn::rotary_kind::linear);

    auto const smollm3 = parse("smollm3", R"({"no_rope_layers": [0, 1]})");
    EXPECT_FALSE(smollm3.layers[0].rotary);
    EXPECT_TRUE(smollm3.layers[1].rotary);

    auto const gpt2 = parse("gpt2", R"({"scale_attn_by_inverse_layer_idx": true, "scale_attn_weights": false})");
    EXPECT_EQ(gpt2.attention.scale, 1);
    EXPECT_EQ(gpt2.layers[1].score_divisor, 2);

    auto const neo = parse("gpt_neo", R"({"window_size": 9, "attention_types": [[["local"], 1], [["global"], 1]]})");
    EXPECT_EQ(neo.attention.scale, 1);
    EXPECT_EQ(neo.layers[0].window, 9);
    EXPECT_EQ(neo.layers[1].window, 0);

    auto const falcon = parse("falcon", R"({"new_decoder_architecture": true, "num_kv_heads": 2})");
    EXPECT_EQ(falcon.heads.kv_heads, 2);
    EXPECT_EQ(falcon.names.qkv_order, fused_order::by_kv_head);
    EXPECT_FALSE(falcon.shared_norm);
    EXPECT_TRUE(parse("falcon", R"({"new_decoder_architecture": true, "num_ln_in_parallel_attn": 1})").shared_norm);
    EXPECT_EQ(parse("falcon").heads.kv_heads, 1);

    auto const exaone =
        parse("exaone4", R"({"num_key_value_heads": 8, "sliding_window": 9, "sliding_window_pattern": 2})");
    EXPECT_TRUE(exaone.layers[0].rotary);
    EXPECT_FALSE(exaone.layers[1].rotary);
    EXPECT_TRUE(parse("bloom").any_length && parse("mpt").any_length);

    auto const ministral = parse("ministral3", R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
        "original_max_position_embeddings": 256, "llama_4_scaling_beta": 0.1, "max_position_embeddings": 1024}})");
    EXPECT_EQ(ministral.max_positions, 256) << "behind which queries are scaled";
}

TEST(configuration, a_file_means_what_the_version_that_wrote_it_does) {
    auto const by = [](char const* type, char const* version, char const* patch) {
        auto json = minimal(type);
        json.merge_patch(nlohmann::json::parse(patch));
        json["transformers_version"] = version;
        return parse_configuration(json, "f");
    };
    char const* const gelu = R"({"hidden_act": "gelu", "num_key_value_heads": 8})";
    EXPECT_EQ(by("gemma", "4.38.0", gelu).gate.kind, nn::activation::gelu_tanh);
    EXPECT_EQ(by("gemma", "5.0.0", gelu).gate.kind, nn::activation::gelu);

    char const* const alibi = R"({"alibi": true, "num_attention_heads": 4})";
    auto const once = by("falcon", "4.27.4", alibi).attention.slopes;
    auto const twice = by("falcon", "5.12.1", alibi).attention.slopes;
    EXPECT_EQ(once, (std::vector<float>{0.0625F, 0.015625F, 0.00390625F, 0.0009765625F})); // over sqrt(16)
    EXPECT_EQ(twice[0], 2 * once[0]);

    char const* const yarn =
        R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}})";
    EXPECT_EQ(by("olmo3", "4.57.0", yarn).layers.front().rotary->kind, nn::rotary_kind::plain);
    EXPECT_EQ(by("olmo3", "5.12.1", yarn).layers.front().rotary->kind, nn::rotary_kind::yarn);
}

TEST(configuration, errors_name_file_and_field) {
    expect_errors({
        {"llama", R"({"model_type": null})", "f, field 'model_type': is missing"},
        {"llama", R"({"model_type": 3})", "f, field 'model_type': is 3; expected a string"},
        {"llama", R"({"vocab_size": null})", "f, field 'vocab_size': is missing"},
        {"llama", R"({"hidden_size": 0})", "f, field 'hidden_size': is 0; expected an integer from 1 to 16777216"},
        {"llama", R"({"num_hidden_layers": -3})",
         "f, field 'num_hidden_layers': is -3; expected an integer from 1 to 4096"},
        {"llama", R"({"num_hidden_layers": 65536})",
         "f, field 'num_hidden_layers': is 65536; expected an integer from 1 to 4096"},
        {"llama", R"({"head_dim": 65536})", "f, field 'head_dim': is 65536; expected an integer from 1 to 16384"},
        {"llama", R"({"intermediate_size": 18446744073709551615})",
         "f, field 'intermediate_size': is 18446744073709551615; expected an integer from 1 to 16777216"},
        {"llama", R"({"intermediate_size": 9223372036854775807})",
         "f, field 'intermediate_size': is 9223372036854775807; expected an integer from 1 to 16777216"},
        {"llama", R"({"num_attention_heads": 2.5})",
         "f, field 'num_attention_heads': is 2.5; expected an integer from 1 to 16777216"},
        {"llama", R"({"num_attention_heads": 7})",
         "f, field 'num_attention_heads': is 7, which does not divide hidden_size 64"},
        {"llama", R"({"num_key_value_heads": 3})",
         "f, field 'num_key_value_heads': is 3, which does not divide num_attention_heads 8"},
        {"llama", R"({"head_dim": 7})",
         "f, field 'head_dim': gives rotary positions 7 of the 7 features of a head; they need an even number of them"},
        {"llama", R"({"max_position_embeddings": 16777217})",
         "f, field 'max_position_embeddings': is 16777217; expected an integer from 1 to 16777216"},
        {"llama", R"({"hidden_act": "gelu_10"})", "f, field 'hidden_act': is 'gelu_10', which is not supported"},
        {"llama", R"({"rms_norm_eps": 0})", "f, field 'rms_norm_eps': is 0; expected a positive number"},
        {"llama", R"({"rope_theta": 1e99})", "f, field 'rope_theta': is 1e+99; expected a positive number"},
        {"llama", R"({"rope_scaling": {"type": "mrope"}})",
         "f, field 'rope_scaling', field 'type': is 'mrope', which is not supported"},
        {"llama", R"({"rope_scaling": "yarn"})", "f, field 'rope_scaling': is not a JSON object"},
        {"llama", R"({"partial_rotary_factor": 0.5})",
         "f, field 'partial_rotary_factor': is not 1, which models of this type do not compute"},
        {"llama", R"({"tie_word_embeddings": "no"})",
         "f, field 'tie_word_embeddings': is \"no\"; expected true or false"},
        {"llama", R"({"sliding_window": 8})",
         "f, field 'sliding_window': is 8, which is not understood; it may change what the model computes"},
        {"llama", R"({"novelty": "a"})",
         "f, field 'novelty': is \"a\", which is not understood; it may change what the model computes"},
        {"opt", R"({"layer_norm_elementwise_affine": false})",
         "f, field 'layer_norm_elementwise_affine': is false, which is not supported"},
        {"opt", R"({"activation_function": "sigmoid"})",
         "f, field 'activation_function': is 'sigmoid', which is not supported"},
    });
    EXPECT_THROW(parse_configuration(nlohmann::json::array(), "f"), error);
    auto const unknown = message({{"model_type", "bert"}});
    EXPECT_EQ(unknown.find("f, field 'model_type': is 'bert'; supported are llama, "), 0U) << unknown;
    EXPECT_NE(unknown.find("gpt_oss"), std::string::npos);
}

TEST(configuration, what_a_family_does_not_compute_is_refused_by_its_field) {
    expect_errors({
        {"mistral", R"({"layer_types": ["sliding_attention", "full_attention"]})",
         "f, field 'layer_types': holds 'full_attention', but models of this type have one window for all layers, or "
         "none"},
        {"qwen2", R"({"num_key_value_heads": 8, "layer_types": ["sliding_attention", "full_attention"]})",
         "f, field 'sliding_window': is missing, but some layers slide"},
        {"gemma2", R"({"use_bidirectional_attention": true})",
         "f, field 'use_bidirectional_attention': is not false, which is not supported"},
        {"gemma3_text", R"({"attn_logit_softcapping": 30.0})",
         "f, field 'attn_logit_softcapping': is 30.0, which is not supported"},
        {"gemma3_text", R"({"_sliding_window_pattern": 4})",
         "f, field '_sliding_window_pattern': is 4, which is not supported"},
        {"phi3", R"({"mlp_bias": true})", "f, field 'mlp_bias': is true, which is not supported"},
        {"phi3", R"({"full_attn_mod": 2})", "f, field 'full_attn_mod': is 2, which is not supported"},
        {"phi", R"({"tie_word_embeddings": true})", "f, field 'tie_word_embeddings': is true, which is not supported"},
        {"olmo", R"({"clip_qkv": 8.0})",
         "f, field 'clip_qkv': is 8.0, which is not understood; it may change what the model computes"},
        {"olmoe", R"({"clip_qkv": 8.0})",
         "f, field 'clip_qkv': is 8.0, which is not understood; it may change what the model computes"},
        {"granitemoehybrid", R"({"layer_types": ["attention", "mamba"]})",
         "f, field 'layer_types': holds other layers than 'attention', which is not supported"},
        {"mixtral", R"({"num_experts_per_tok": 9})",
         "f, field 'num_experts_per_tok': is 9, more than there are experts"},
        {"gpt_oss", R"({"swiglu_limit": 5.0})", "f, field 'swiglu_limit': is 5.0, which is not supported"},
        {"stablelm", R"({"num_key_value_heads": 8, "qk_layernorm": true})",
         "f, field 'qk_layernorm': is true, which is not supported"},
        {"bloom", R"({"apply_residual_connection_post_layernorm": true, "intermediate_size": null})",
         "f, field 'apply_residual_connection_post_layernorm': is true, which is not supported"},
        {"bloom", R"({"n_inner": 160})", "f, field 'n_inner': is 160, which is not supported"},
        {"bloom", R"({"slow_but_exact": true, "pretraining_tp": 4})",
         "f, field 'slow_but_exact': is true, which is not supported where pretraining_tp is not 1"},
        {"falcon", R"({"new_decoder_architecture": true, "parallel_attn": false})",
         "f, field 'parallel_attn': is false, which is not supported"},
        {"falcon", R"({"num_ln_in_parallel_attn": 2})",
         "f, field 'num_ln_in_parallel_attn': is 2, which needs new_decoder_architecture"},
        {"gpt2", R"({"add_cross_attention": true})", "f, field 'add_cross_attention': is true, which is not supported"},
        {"gpt_neo", R"({"attention_types": [[["global", "local"], 2]]})",
         "f, field 'attention_types': says 4 layers of 2"},
        {"gpt_neo", R"({"attention_types": [[["global", "far"], 1]]})",
         "f, field 'attention_types': holds 'far', which is not supported"},
        {"gpt_neo", R"({"attention_types": "global"})",
         "f, field 'attention_types': is no list of types of layers and how often they are repeated"},
        {"mpt", R"({"no_bias": false})", "f, field 'no_bias': is false, which is not supported"},
        {"mpt", R"({"logit_scale": 0.5})", "f, field 'logit_scale': is 0.5, which is not supported"},
        {"mpt", R"({"expansion_ratio": 2})", "f, field 'expansion_ratio': is 2, which is not supported"},
        {"mpt", R"({"norm_type": "rmsnorm"})", "f, field 'norm_type': is no layernorm, which is not supported"},
        {"mpt", R"({"attn_config": {"clip_qkv": 8.0}})",
         "f, field 'attn_config', field 'clip_qkv': is 8.0, which is not understood; it may change what the model "
         "computes"},
        {"mpt", R"({"attn_config": {"alibi": false}})",
         "f, field 'attn_config', field 'alibi': is false, which is not supported"},
        {"mpt", R"({"attn_config": {"alibi_bias_max": 4}})",
         "f, field 'attn_config', field 'alibi_bias_max': is 4, which is not supported"},
    });
}

TEST(configuration, published_files_are_read) {
    // What the files of StarCoder 2, Phi-4-mini, Command R7B, MPT and GPT-J say besides sizes.
    EXPECT_EQ(parse("starcoder2", R"({"activation_function": "gelu", "hidden_act": "gelu_pytorch_tanh",
        "mlp_type": "default", "norm_type": "layer_norm", "use_bias": true})")
                  .gate.kind,
              nn::activation::gelu_tanh);
    EXPECT_EQ(parse("phi3", R"({"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": false, "mlp_bias": false,
        "head_dim": 16, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 4096})")
                  .layers.front()
                  .rotary->dimensions,
              12);
    EXPECT_EQ(parse("cohere2", R"({"layer_switch": 4, "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj", "rotary_pct": 1.0, "sliding_window_pattern": 4,
        "use_embedding_sharing": true, "use_gated_activation": true, "use_parallel_block": true})")
                  .layers[0]
                  .window,
              4096);
    EXPECT_NO_THROW(parse("mpt", R"({"attn_config": {"alibi": true, "alibi_bias_max": 8, "attn_impl": "torch",
        "attn_pdrop": 0, "attn_type": "multihead_attention", "attn_uses_sequence_id": false, "clip_qkv": null,
        "prefix_lm": false, "qk_ln": false, "softmax_scale": null}, "embedding_fraction": 1.0, "expansion_ratio": 4,
        "init_config": {"verbose": 0}, "init_device": "cpu", "learned_pos_emb": true, "logit_scale": null,
        "no_bias": true, "norm_type": "low_precision_layernorm", "tokenizer_name": "a", "verbose": 0})"));
    EXPECT_NO_THROW(parse("gptj", R"({"rotary": true, "rotary_dim": 8, "scale_attn_weights": true})"));
}

TEST(configuration, what_serves_other_purposes_is_passed_over) {
    EXPECT_NO_THROW(parse("llama", R"({"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0", "use_cache": true, "pretraining_tp": 2, "attention_dropout": 0.5,
        "initializer_range": 0.02, "do_sample": true, "temperature": 0.6, "top_p": 0.9, "max_length": 4096,
        "_attn_implementation_autoset": true, "hidden_dropout_prob": 0, "model_max_length": 9, "n_special": 0,
        "id2label": {"0": "a"}, "pad_token_id": 0, "bos_token_id": 1})"));
}

TEST(configuration, generation_ends_where_either_file_says) {
    temporary_directory const directory;
    auto const write = [&](char const* name, std::string const& text) {
        io::write_text(directory / name, text);
        return read_configuration(directory / "config.json").end_of_text;
    };
    std::string const configuration = R"({"model_type": "llama", "vocab_size": 100, "hidden_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "eos_token_id": 7})";
    EXPECT_EQ(write("config.json", configuration), (std::vector<index_t>{7}));
    EXPECT_EQ(write("generation_config.json", R"({"eos_token_id": [9, 7, 8, 500], "temperature": 0.6})"),
              (std::vector<index_t>{7, 9, 8}));
    EXPECT_EQ(write("generation_config.json", R"({"eos_token_id": 3})"), (std::vector<index_t>{7, 3}));
    EXPECT_EQ(write("generation_config.json", R"({"do_sample": true})"), (std::vector<index_t>{7}));
    EXPECT_TRUE(contains(failure_message([&] { write("generation_config.json", R"({"eos_token_id": "end"})"); }),
                         "generation_config.json"));
}

} // namespace detent
