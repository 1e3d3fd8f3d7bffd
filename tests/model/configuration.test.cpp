// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/configuration.hpp"

namespace detent {

namespace {

nlohmann::json minimal(std::string const& type) {
    nlohmann::json json{{"model_type", type},
                        {"vocab_size", 100},
                        {"hidden_size", 64},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 8}};
    json[type == "opt" ? "ffn_dim" : "intermediate_size"] = 160;
    return json;
}

struct wrong_field {
    char const* type;
    char const* patch; // merged into the minimal configuration; null removes
    char const* message;
};

} // namespace

TEST(configuration, missing_fields_take_the_defaults_of_the_family) {
    auto const llama = parse_configuration(minimal("llama"), "f");
    EXPECT_EQ(llama.family, model_family::llama);
    EXPECT_EQ(llama.heads.kv_heads, 8);
    EXPECT_EQ(llama.heads.head_dim, 8);
    EXPECT_EQ(llama.max_positions, 2048);
    EXPECT_EQ(llama.norm_eps, 1e-6F);
    EXPECT_EQ(llama.rope_theta, 10000.0);
    EXPECT_FALSE(llama.tied_embeddings || llama.qkv_bias || llama.output_bias || llama.mlp_bias);
    EXPECT_TRUE(llama.end_of_text.empty());

    auto json = minimal("mistral");
    json["sliding_window"] = nullptr;
    auto const mistral = parse_configuration(json, "f");
    EXPECT_EQ(mistral.heads.kv_heads, 8);
    EXPECT_EQ(mistral.max_positions, 131072);

    auto const qwen2 = parse_configuration(minimal("qwen2"), "f");
    EXPECT_TRUE(qwen2.qkv_bias);
    EXPECT_FALSE(qwen2.output_bias || qwen2.mlp_bias);
    EXPECT_EQ(qwen2.max_positions, 32768);

    auto const opt = parse_configuration(minimal("opt"), "f");
    EXPECT_EQ(opt.family, model_family::opt);
    EXPECT_EQ(opt.activation, nn::activation::relu);
    EXPECT_EQ(opt.norm_eps, 1e-5F);
    EXPECT_EQ(opt.intermediate, 160);
    EXPECT_TRUE(opt.tied_embeddings && opt.qkv_bias && opt.output_bias && opt.mlp_bias);
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
    EXPECT_EQ(c.rope_theta, 5e5);
    EXPECT_TRUE(c.tied_embeddings && c.qkv_bias && c.output_bias && c.mlp_bias);
    EXPECT_EQ(c.max_positions, 77);
    EXPECT_EQ(c.norm_eps, 0.25F);
    EXPECT_EQ(c.end_of_text, (std::vector<index_t>{3, 4}));
    EXPECT_EQ(c.vocabulary, 100);
    EXPECT_EQ(c.hidden, 64);
    EXPECT_EQ(c.layers, 2);

    json["rope_parameters"] = nullptr;
    json["rope_theta"] = 123.0;
    EXPECT_EQ(parse_configuration(json, "f").rope_theta, 123.0);

    for (auto const& [name, kind] : {std::pair{"gelu", nn::activation::gelu},
                                     {"gelu_new", nn::activation::gelu_tanh},
                                     {"relu", nn::activation::relu}}) {
        auto opt = minimal("opt");
        opt["activation_function"] = name;
        opt["enable_bias"] = false;
        EXPECT_EQ(parse_configuration(opt, "f").activation, kind);
        EXPECT_FALSE(parse_configuration(opt, "f").mlp_bias);
    }
}

TEST(configuration, a_window_that_never_slides_is_accepted) {
    auto json = minimal("mistral");
    json["max_position_embeddings"] = 4096;
    EXPECT_NO_THROW(parse_configuration(json, "f"));
    json = minimal("qwen2");
    json["sliding_window"] = 128;
    EXPECT_NO_THROW(parse_configuration(json, "f"));
}

TEST(configuration, errors_name_file_and_field) {
    for (auto const& w : std::vector<wrong_field>{
             {"llama", R"({"model_type": null})", "f, field 'model_type': is missing"},
             {"llama", R"({"model_type": "bert"})",
              "f, field 'model_type': is 'bert'; supported are llama, mistral, qwen2 and opt"},
             {"llama", R"({"model_type": 3})", "f, field 'model_type': is 3; expected a string"},
             {"llama", R"({"vocab_size": null})", "f, field 'vocab_size': is missing"},
             {"llama", R"({"hidden_size": 0})", "f, field 'hidden_size': is 0; expected an integer from 1 to 16777216"},
             {"llama", R"({"num_hidden_layers": -3})",
              "f, field 'num_hidden_layers': is -3; expected an integer from 1 to 16777216"},
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
             {"llama", R"({"head_dim": 7})", "f, field 'head_dim': is 7; rotary positions need an even number"},
             {"llama", R"({"max_position_embeddings": 1048577})",
              "f, field 'max_position_embeddings': is 1048577; expected an integer from 1 to 1048576"},
             {"llama", R"({"hidden_act": "gelu"})", "f, field 'hidden_act': is 'gelu'; supported are silu and swish"},
             {"llama", R"({"rms_norm_eps": 0})", "f, field 'rms_norm_eps': is 0; expected a positive number"},
             {"llama", R"({"rope_theta": 1e99})", "f, field 'rope_theta': is 1e+99; expected a positive number"},
             {"llama", R"({"rope_scaling": {"type": "linear", "factor": 2.0}})",
              "f, field 'rope_scaling', field 'type': is 'linear'; only 'default' is supported"},
             {"llama", R"({"rope_parameters": {"rope_type": "llama3"}})",
              "f, field 'rope_parameters', field 'rope_type': is 'llama3'; only 'default' is supported"},
             {"llama", R"({"rope_scaling": "yarn"})", "f, field 'rope_scaling': is not a JSON object"},
             {"llama", R"({"partial_rotary_factor": 0.5})",
              "f, field 'partial_rotary_factor': is not 1, which is not supported"},
             {"llama", R"({"tie_word_embeddings": "no"})",
              "f, field 'tie_word_embeddings': is \"no\"; expected true or false"},
             {"llama", R"({"eos_token_id": 100})",
              "f, field 'eos_token_id': holds 100, not a token id below vocab_size"},
             {"mistral", R"({})",
              "f, field 'sliding_window': is 4096, less than max_position_embeddings, which is not supported"},
             {"qwen2", R"({"use_sliding_window": true, "sliding_window": 128})",
              "f, field 'sliding_window': is 128, less than max_position_embeddings, which is not supported"},
             {"opt", R"({"do_layer_norm_before": false})",
              "f, field 'do_layer_norm_before': is false, which is not supported"},
             {"opt", R"({"layer_norm_elementwise_affine": false})",
              "f, field 'layer_norm_elementwise_affine': is false, which is not supported"},
             {"opt", R"({"_remove_final_layer_norm": true})",
              "f, field '_remove_final_layer_norm': is true, which is not supported"},
             {"opt", R"({"word_embed_proj_dim": 32})",
              "f, field 'word_embed_proj_dim': differs from hidden_size, which is not supported"},
             {"opt", R"({"activation_function": "tanh"})",
              "f, field 'activation_function': is 'tanh'; supported are relu, gelu, gelu_new, gelu_fast and "
              "gelu_pytorch_tanh"},
         }) {
        auto json = minimal(w.type);
        json.merge_patch(nlohmann::json::parse(w.patch));
        try {
            parse_configuration(json, "f");
            ADD_FAILURE() << w.patch << " was accepted";
        } catch (error const& e) {
            EXPECT_STREQ(e.what(), w.message);
        }
    }
    EXPECT_THROW(parse_configuration(nlohmann::json::array(), "f"), error);
}

} // namespace detent
