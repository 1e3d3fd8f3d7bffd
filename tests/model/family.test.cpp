// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/configuration.hpp"
#include "detent/model/family.hpp"

namespace detent {

namespace {

/// A small model of any family.
nlohmann::json small(std::string_view type) {
    auto json =
        nlohmann::json{{"model_type", type},       {"vocab_size", 100},        {"hidden_size", 64},
                       {"intermediate_size", 256}, {"num_hidden_layers", 2},   {"num_attention_heads", 4},
                       {"head_dim", 16},           {"num_key_value_heads", 4}, {"max_position_embeddings", 128}};
    if (type == "gptj") {
        json["rotary_dim"] = 8;
    }
    if (type == "gpt_neo") {
        json["attention_types"] = nlohmann::json::parse(R"([[["global", "local"], 1]])");
    }
    if (type == "granitemoehybrid") {
        json["layer_types"] = {"attention", "attention"};
    }
    if (type == "dots1") {
        json.merge_patch({{"n_routed_experts", 4}, {"num_experts_per_tok", 2}, {"n_shared_experts", 1}});
    }
    if (type == "ministral3") {
        json["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 2.0}};
    }
    return json;
}

} // namespace

TEST(family, every_type_is_there_once_and_reads_a_small_model) {
    std::set<std::string_view> seen;
    for (auto const& family : families()) {
        EXPECT_TRUE(seen.insert(family.type).second) << family.type;
        auto const c = parse_configuration(small(family.type), "f");
        EXPECT_EQ(c.type, family.type);
        EXPECT_EQ(c.hidden, 64) << family.type;
        EXPECT_EQ(c.layers.size(), 2U) << family.type;
        EXPECT_EQ(c.heads.heads * c.heads.head_dim, 64) << family.type;
        EXPECT_GT(c.max_positions, 0) << family.type;
        EXPECT_GT(c.attention.scale, 0) << family.type;
        EXPECT_EQ(c.embedding_width, 64) << family.type;
    }
    EXPECT_EQ(decoder_families().size(), families().size());
}

TEST(family, names_are_there_for_all_that_a_configuration_has) {
    for (auto const& family : families()) {
        auto const c = parse_configuration(small(family.type), "f");
        auto const& n = c.names;
        std::string const type(family.type);
        EXPECT_FALSE(n.prefixes.empty() || n.embeddings.empty() || n.blocks.empty() || n.head.empty()) << type;
        EXPECT_FALSE(n.output.empty() || n.up.empty() || n.down.empty()) << type;
        EXPECT_TRUE(!n.qkv.empty() || !(n.query.empty() || n.key.empty() || n.value.empty())) << type;
        EXPECT_EQ(c.gated, !n.gate.empty() || !n.gate_up.empty()) << type;
        EXPECT_EQ(c.learned_positions, !n.positions.empty()) << type;
        EXPECT_EQ(c.embedding_norm, !n.embedding_norm.empty()) << type;
        EXPECT_TRUE(c.norms.input || c.norms.output || c.norms.sum) << type;
        EXPECT_TRUE(!c.norms.input || !(n.attention_norm.empty() || n.mlp_norm.empty())) << type;
        EXPECT_TRUE(!c.norms.output || !(n.attention_output_norm.empty() || n.mlp_output_norm.empty())) << type;
        EXPECT_TRUE(!c.query_key_norm || !(n.query_norm.empty() || n.key_norm.empty())) << type;
        if (c.experts) {
            EXPECT_FALSE(n.router.empty() || n.experts.empty()) << type;
            EXPECT_TRUE(c.experts->shared_intermediate == 0 || !n.shared_expert.empty() || !n.shared_down.empty())
                << type;
            EXPECT_EQ(c.experts->shared_gate, !n.shared_gate.empty()) << type;
            EXPECT_GT(c.experts->count, 0) << type;
        }
    }
}

TEST(family, slopes_of_alibi_are_geometric) {
    auto const slopes = [](char const* type, index_t heads) {
        auto json = small(type);
        json["num_attention_heads"] = json["num_key_value_heads"] = heads;
        json["hidden_size"] = 16 * heads;
        json["intermediate_size"] = 64 * heads;
        return parse_configuration(json, "f").attention.slopes;
    };
    EXPECT_EQ(slopes("bloom", 4), (std::vector<float>{0.25F, 0.0625F, 0.015625F, 0.00390625F}));
    EXPECT_EQ(slopes("mpt", 4), slopes("bloom", 4));
    // Six heads: BLOOM takes those of four heads and then every second one of eight, MPT every second one first.
    EXPECT_EQ(slopes("bloom", 6), (std::vector<float>{0.25F, 0.0625F, 0.015625F, 0.00390625F, 0.5F, 0.125F}));
    EXPECT_EQ(slopes("mpt", 6), (std::vector<float>{0.25F, 0.0625F, 0.015625F, 0.00390625F, 0.5F, 0.125F}));
    EXPECT_EQ(slopes("mpt", 3), (std::vector<float>{0.0625F, 0.00390625F, 0.25F}));
    EXPECT_EQ(slopes("bloom", 3), (std::vector<float>{0.0625F, 0.00390625F, 0.25F}));
}

} // namespace detent
