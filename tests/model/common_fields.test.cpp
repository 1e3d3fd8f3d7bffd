// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/common_fields.hpp"

namespace detent {

namespace {

using nlohmann::json;
using nn::rotary_kind;

/// Four heads of 16 features in three layers, with `patch` merged into it.
json with(char const* patch) {
    json all{{"vocab_size", 100},        {"hidden_size", 64},      {"intermediate_size", 96},
             {"num_attention_heads", 4}, {"num_hidden_layers", 3}, {"max_position_embeddings", 512}};
    all.merge_patch(json::parse(patch));
    return all;
}

model_configuration read(json const& all, family_defaults const& defaults = {}) {
    configuration_fields const fields(all, "f");
    model_configuration c;
    read_common(fields, c, defaults);
    read_rotaries(fields, c, defaults);
    fields.expect_all_read();
    return c;
}

std::string message(char const* patch, family_defaults const& defaults = {}) {
    try {
        read(with(patch), defaults);
    } catch (error const& e) {
        return e.what();
    }
    return "no error";
}

nn::rotary_law law_of(char const* patch, family_defaults const& defaults = {}) {
    return *read(with(patch), defaults).layers.front().rotary;
}

} // namespace

TEST(common_fields, sizes_have_one_of_several_names) {
    auto const all = json::parse(R"({"vocab_size": 100, "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 77,
        "activation_function": "gelu_new", "layer_norm_epsilon": 0.25, "tie_word_embeddings": true,
        "eos_token_id": [3, 200]})");
    auto const c = read(all, {.wide = true});
    EXPECT_EQ(c.hidden, 64);
    EXPECT_EQ(c.intermediate, 256);
    EXPECT_EQ(c.heads.head_dim, 16);
    EXPECT_EQ(c.layers.size(), 3U);
    EXPECT_EQ(c.max_positions, 77);
    EXPECT_EQ(c.gate.kind, nn::activation::gelu_tanh);
    EXPECT_EQ(c.norm_eps, 0.25F);
    EXPECT_TRUE(c.tied_embeddings);
    EXPECT_EQ(c.end_of_text, (std::vector<index_t>{3}));
    EXPECT_EQ(message(R"({"n_embd": 32})"), "f, field 'n_embd': is 32, but hidden_size, which means the same, is 64");
}

TEST(common_fields, missing_fields_are_the_defaults_and_null_is_not) {
    family_defaults const defaults{.kv_heads = 2, .head_dim = 8, .max_positions = 9, .norm_eps = 0.5, .tied = true};
    auto const c = read(with(R"({"max_position_embeddings": null})"), defaults);
    EXPECT_EQ(c.heads.kv_heads, 2);
    EXPECT_EQ(c.heads.head_dim, 8);
    EXPECT_EQ(c.max_positions, 9);
    EXPECT_EQ(c.norm_eps, 0.5F);
    EXPECT_TRUE(c.tied_embeddings);
    auto null = with("{}");
    null["num_key_value_heads"] = null["head_dim"] = nullptr;
    EXPECT_EQ(read(null, defaults).heads.kv_heads, 4);
    EXPECT_EQ(read(null, defaults).heads.head_dim, 16);
    EXPECT_EQ(read(with("{}")).heads.kv_heads, 4);
    EXPECT_EQ(message(R"({"intermediate_size": null})"), "f, field 'intermediate_size': is missing");
}

TEST(common_fields, rotary_laws_are_read_from_either_spelling) {
    auto const same = [](char const* a, char const* b) { EXPECT_EQ(law_of(a), law_of(b)) << b; };
    same(R"({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})", R"({"rope_theta": 5e5})");
    same(R"({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}})",
         R"({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}})");
    same(R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}})",
         R"({"original_max_position_embeddings": 128, "rope_scaling": {"type": "yarn", "factor": 4.0}})");
    same(R"({"rope_scaling": {"type": "linear", "factor": 4.0}})", // the older word goes first
         R"({"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}})");
    same(R"({"rope_theta": 3e4})", R"({"rope_theta": 9.0, "rope_parameters": {"rope_theta": 3e4}})");

    auto const yarn =
        law_of(R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "beta_slow": 2,
        "mscale": 0.7, "mscale_all_dim": 0, "attention_factor": 1.5, "truncate": false}})");
    EXPECT_EQ(yarn.kind, rotary_kind::yarn);
    EXPECT_EQ(yarn.beta_fast, 16);
    EXPECT_EQ(yarn.beta_slow, 2);
    EXPECT_EQ(yarn.mscale, 0.7);
    EXPECT_EQ(yarn.mscale_all_dim, 0);
    EXPECT_EQ(yarn.attention_factor, 1.5);
    EXPECT_EQ(yarn.original_positions, 512);
    EXPECT_FALSE(yarn.truncate);

    auto const llama3 = law_of(R"({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.5,
        "high_freq_factor": 2.0, "original_max_position_embeddings": 64}})");
    EXPECT_EQ(llama3.low_freq_factor, 0.5);
    EXPECT_EQ(llama3.high_freq_factor, 2);
    EXPECT_EQ(llama3.original_positions, 64);

    EXPECT_EQ(law_of(R"({"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.5}})").rotated, 4);
    EXPECT_TRUE(read(with(R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})")).any_length);
    EXPECT_FALSE(read(with("{}")).any_length);
}

TEST(common_fields, shares_of_a_head_are_rotated_where_the_family_can) {
    family_defaults const half{.rotary_share = 0.5};
    EXPECT_EQ(law_of("{}", half).dimensions, 8);
    EXPECT_EQ(law_of(R"({"rope_parameters": {"rope_type": "default"}})", half).dimensions, 8);
    EXPECT_EQ(law_of(R"({"partial_rotary_factor": 0.25})", half).dimensions, 4);
    EXPECT_EQ(law_of(R"({"rotary_pct": 0.25})", half).dimensions, 4);
    EXPECT_EQ(law_of(R"({"rope_parameters": {"partial_rotary_factor": 0.75}})", half).dimensions, 12);
    // An object goes first, as long as it does not scale.
    EXPECT_EQ(law_of(R"({"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 0.75}})", half)
                  .dimensions,
              12);
    EXPECT_EQ(message(R"({"partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "linear", "factor": 2,
                  "partial_rotary_factor": 0.75}})",
                      half),
              "f, field 'rope_parameters', field 'partial_rotary_factor': is 0.75, but that of the model is 0.5");
    EXPECT_EQ(message(R"({"partial_rotary_factor": 0.5})"),
              "f, field 'partial_rotary_factor': is not 1, which models of this type do not compute");
    EXPECT_EQ(message(R"({"partial_rotary_factor": 0.2})", half),
              "f, field 'head_dim': gives rotary positions 3 of the 16 features of a head; they need an even number of "
              "them");
}

TEST(common_fields, layers_of_each_type_may_have_a_law_of_their_own) {
    auto const c = read(with(R"({"layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}})"));
    EXPECT_EQ(c.layers[0].rotary->kind, rotary_kind::linear);
    EXPECT_EQ(c.layers[0].rotary->base, 1e6);
    EXPECT_EQ(c.layers[1].rotary->kind, rotary_kind::plain);
    EXPECT_EQ(c.layers[1].rotary->base, 1e4);
    EXPECT_EQ(message(R"({"layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "default"}}})"),
              "f, field 'rope_parameters', field 'sliding_attention': is missing");
}

TEST(common_fields, rotary_laws_that_are_not_computed_are_refused) {
    EXPECT_EQ(message(R"({"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}})"),
              "f, field 'rope_scaling', field 'type': is 'mrope', which is not supported");
    EXPECT_EQ(message(R"({"rope_scaling": {"type": "su", "short_factor": [1], "long_factor": [1]}})"),
              "f, field 'rope_scaling', field 'type': is 'su', which is not supported");
    EXPECT_EQ(message(R"({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3}})"),
              "f, field 'rope_scaling', field 'beta_fast': is 3, which is not understood; it may change what the model "
              "computes");
    EXPECT_EQ(message(R"({"rope_scaling": {"rope_type": "llama3", "factor": 2.0, "high_freq_factor": 3}})"),
              "f, field 'rope_scaling', field 'low_freq_factor': is missing");
    EXPECT_EQ(message(R"({"rope_scaling": {"rope_type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2]}})"),
              "f, field 'rope_scaling', field 'short_factor': is [1,2]; expected a list of 8 positive numbers");
    EXPECT_EQ(message(R"({"rope_scaling": "yarn"})"), "f, field 'rope_scaling': is not a JSON object");
    EXPECT_NE(message(R"({"rope_scaling": {"rope_type": "linear"}})").find("field 'factor': is missing"),
              std::string::npos);
    family_defaults const phi3{.original_positions = 256, .only_longrope = true};
    EXPECT_EQ(message(R"({"rope_scaling": {"rope_type": "linear", "factor": 2.0}})", phi3),
              "f, field 'rope_scaling', field 'rope_type': is 'linear', which is not supported");
    auto const su = law_of(R"({"rope_scaling": {"type": "su", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],
        "long_factor": [2, 2, 2, 2, 2, 2, 2, 2]}})",
                           phi3);
    EXPECT_EQ(su.kind, rotary_kind::longrope);
    EXPECT_EQ(su.original_positions, 256);
    EXPECT_EQ(su.max_positions, 512);
}

TEST(common_fields, windows_are_those_of_the_types_of_layers) {
    auto const windows = [](json const& all, index_t window) {
        configuration_fields const fields(all, "f");
        model_configuration c;
        c.layers.resize(3);
        read_windows(fields, c, window, [](index_t layer) { return layer == 1; });
        return std::vector<index_t>{c.layers[0].window, c.layers[1].window, c.layers[2].window};
    };
    EXPECT_EQ(windows(json::object(), 7), (std::vector<index_t>{0, 7, 0}));
    EXPECT_EQ(windows({{"layer_types", {"sliding_attention", "full_attention", "sliding_attention"}}}, 7),
              (std::vector<index_t>{7, 0, 7}));
    EXPECT_THROW(windows(json::object(), 0), error);
    EXPECT_THROW(windows({{"layer_types", {"full_attention", "full_attention", "chunked_attention"}}}, 7), error);
    EXPECT_THROW(windows({{"layer_types", {"full_attention"}}}, 7), error);

    auto const types = json{{"layer_types", {"sliding_attention", "sliding_attention", "sliding_attention"}}};
    configuration_fields const fields(types, "f");
    model_configuration c;
    c.layers.resize(3);
    read_one_window(fields, c, 5);
    EXPECT_EQ(c.layers[2].window, 5);
    EXPECT_THROW(read_one_window(fields, c, 0), error);
}

TEST(common_fields, the_writer_of_a_file_is_known_by_its_version) {
    auto const written_by = [](char const* version) {
        json const all{{"transformers_version", version}};
        return is_of_transformers_5(configuration_fields(all, "f"));
    };
    EXPECT_TRUE(written_by("5.12.1"));
    EXPECT_TRUE(written_by("10.0"));
    EXPECT_FALSE(written_by("4.57.1"));
    EXPECT_FALSE(written_by("unknown"));
    EXPECT_FALSE(is_of_transformers_5(configuration_fields(json::object(), "f")));
}

} // namespace detent
