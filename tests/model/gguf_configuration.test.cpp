// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/gguf_configuration.hpp"
#include "io/failure_message.hpp"
#include "model/random_decoder.hpp"

namespace detent {
namespace {

/// A LLaMA as `change` makes it.
template <class Change> model_configuration llama_with(Change const& change) {
    auto json = test::llama_json();
    change(json);
    return parse_configuration(json, "config.json");
}

/// What is written of a model of the architecture for its family.
io::gguf_metadata settings_of(model_configuration const& c) {
    io::gguf_metadata metadata("GGUF");
    auto const& a = *find_gguf_architecture(c.type);
    metadata.add("general.architecture", std::string(a.name));
    add_gguf_settings(metadata, c, a);
    return metadata;
}

/// What a file of the model amounts to.
model_configuration read_back(model_configuration const& c) {
    return parse_configuration(gguf_configuration(settings_of(c), contents_for(c, *find_gguf_architecture(c.type))),
                               "GGUF");
}

TEST(gguf_configuration, sizes_come_back) {
    auto const c = llama_with([](auto&) {});
    EXPECT_EQ(gguf_obstacle(c), "");
    auto const back = read_back(c);
    EXPECT_EQ(back.hidden, 12);
    EXPECT_EQ(back.heads.head_dim, 6);
    EXPECT_EQ(back.heads.kv_heads, 2);
    EXPECT_EQ(back.vocabulary, 19);
    EXPECT_EQ(back.max_positions, 40);
    EXPECT_EQ(back.layers.size(), 2U);
    EXPECT_EQ(back.layers[1].rotary->base, 500);
    EXPECT_TRUE(back.qkv_bias && back.output_bias && back.mlp_bias && !back.tied_embeddings);
}

TEST(gguf_configuration, llama_3_frequencies_become_divisors) {
    auto const c = llama_with([](auto& json) {
        json["rope_scaling"] = {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 1.0},
                                {"high_freq_factor", 4.0},
                                {"original_max_position_embeddings", 16}};
    });
    EXPECT_EQ(gguf_obstacle(c), "");
    auto const divisors = contents_for(c, *find_gguf_architecture("llama")).divisors;
    ASSERT_EQ(divisors.size(), 3U);
    // A wave of 2 pi base^(i / 3) positions: 6.3, 49.9 and 395.8, where 16 and more are divided by 8, and 4 and fewer
    // are kept; the first lies between, (16 / 6.28 - 1) / 3 = 0.5155 of it kept.
    EXPECT_NEAR(divisors[0], 1 / (0.51549 + (1 - 0.51549) / 8), 1e-4);
    EXPECT_EQ(divisors[1], 8);
    EXPECT_EQ(divisors[2], 8);
    EXPECT_FALSE(settings_of(c).contains("llama.rope.scaling.type"));
}

TEST(gguf_configuration, scaled_positions_come_back) {
    for (auto const* type : {"linear", "yarn"}) {
        auto const c = llama_with([&](auto& json) {
            json["rope_scaling"] = {{"rope_type", type}, {"factor", 4.0}};
            if (std::string(type) == "yarn") {
                json["rope_scaling"]["original_max_position_embeddings"] = 10;
            }
        });
        EXPECT_EQ(gguf_obstacle(c), "") << type;
        EXPECT_EQ(settings_of(c).get<std::string>("llama.rope.scaling.type"), type);
        EXPECT_EQ(read_back(c).layers[0].rotary->factor, 4) << type;
    }
}

TEST(gguf_configuration, dynamic_scaling_is_none_within_the_context) {
    auto const c = llama_with([](auto& json) { json["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}}; });
    EXPECT_EQ(gguf_obstacle(c), ""); // plain within the positions that the file says
    EXPECT_EQ(read_back(c).layers[0].rotary->kind, nn::rotary_kind::plain);
}

TEST(gguf_configuration, a_window_that_is_unknown_there_limits_the_context) {
    auto const c = llama_with([](auto& json) {
        json["model_type"] = "mistral";
        json["sliding_window"] = 16;
        json.erase("attention_bias");
        json.erase("mlp_bias");
    });
    EXPECT_EQ(gguf_obstacle(c), "");
    EXPECT_EQ(settings_of(c).integer("llama.context_length"), 16);
}

TEST(gguf_configuration, other_activations_are_refused) {
    auto const c = llama_with([](auto& json) { json["hidden_act"] = "relu"; });
    EXPECT_EQ(gguf_obstacle(c),
              "llama.cpp's architecture 'llama' has another form of the activation of its feed-forward networks");
}

TEST(gguf_configuration, wrong_files_are_errors) {
    io::gguf_metadata metadata("file");
    metadata.add("general.architecture", std::string("mamba"));
    EXPECT_EQ(failure_message([&] { gguf_configuration(metadata, {}); }), "architecture 'mamba': is not supported");
    io::gguf_metadata empty("file");
    empty.add("general.architecture", std::string("llama"));
    EXPECT_EQ(failure_message([&] { gguf_configuration(empty, {}); }),
              "file, key 'llama.embedding_length': is missing");
}

} // namespace
} // namespace detent
