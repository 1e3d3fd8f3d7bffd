// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/model/assemble_decoder.hpp"
#include "detent/model/configuration.hpp"

namespace detent {

namespace {

/// Answers any tensor, filled with one number, and notes which were asked for.
struct noted_weights {
    std::set<std::string> there = {}; // the names that `contains` knows
    std::set<std::string> tensors = {};
    std::vector<linear_layer> layers = {};
    std::set<std::string> biased = {};

    matrix tensor(std::string const& name, extents shape) {
        tensors.insert(name);
        return matrix::Constant(shape.rows, shape.cols, 0.25F);
    }
    linear_layer linear(linear_layer layer, extents shape, bool has_bias) {
        layer.weight = matrix(matrix::Zero(shape.rows, shape.cols));
        if (has_bias) {
            biased.insert(layer.name);
        }
        layers.push_back(layer);
        return layer;
    }
    bool contains(std::string const& name) const { return there.contains(name); }

    linear_layer const* find(std::string const& name) const {
        for (auto const& layer : layers) {
            if (layer.name == name) {
                return &layer;
            }
        }
        return nullptr;
    }
};

model_configuration configuration_of(char const* type, char const* patch) {
    nlohmann::json json{{"model_type", type},       {"vocab_size", 10},       {"hidden_size", 16},
                        {"intermediate_size", 24},  {"num_hidden_layers", 2}, {"num_attention_heads", 4},
                        {"num_key_value_heads", 2}, {"head_dim", 4},          {"max_position_embeddings", 32}};
    json.merge_patch(nlohmann::json::parse(patch));
    return parse_configuration(json, "f");
}

decoder assemble(char const* type, char const* patch, noted_weights& source) {
    return assemble_decoder(configuration_of(type, patch), "p.", source);
}

} // namespace

TEST(assemble_decoder, asks_for_the_tensors_of_a_family_by_their_names) {
    noted_weights source;
    decoder const model = assemble("llama", R"({"attention_bias": true})", source);
    EXPECT_EQ(source.tensors,
              (std::set<std::string>{"p.layers.0.input_layernorm.weight", "p.layers.0.post_attention_layernorm.weight",
                                     "p.layers.1.input_layernorm.weight", "p.layers.1.post_attention_layernorm.weight",
                                     "p.norm.weight"}));
    EXPECT_EQ(source.layers.size(), 2U + 2 * 7);
    for (auto const* name : {"p.embed_tokens", "lm_head", "p.layers.0.self_attn.k_proj", "p.layers.1.mlp.gate_proj"}) {
        EXPECT_NE(source.find(name), nullptr) << name;
    }
    EXPECT_EQ(source.biased.size(), 8U);
    EXPECT_EQ(model.blocks[0].key.shape(), (extents{8, 16}));
    EXPECT_EQ(model.blocks[0].query.shape(), (extents{16, 16}));
    EXPECT_TRUE(model.lm_head.has_value());
}

TEST(assemble_decoder, follows_a_head_that_is_there_though_tied) {
    noted_weights without;
    EXPECT_FALSE(assemble("llama", R"({"tie_word_embeddings": true})", without).lm_head);
    noted_weights with{.there = {"lm_head.weight"}};
    EXPECT_TRUE(assemble("llama", R"({"tie_word_embeddings": true})", with).lm_head);
}

TEST(assemble_decoder, finds_rows_in_tensors_of_several_layers) {
    noted_weights source;
    assemble("phi3", "{}", source);
    auto const rows = [&](char const* name) { return source.find(name)->stored.value(); };
    stored_rows const key = rows("p.layers.0.self_attn.qkv_proj.key");
    EXPECT_EQ(key.tensor, "p.layers.0.self_attn.qkv_proj");
    EXPECT_EQ(key.row(0), 16);
    EXPECT_EQ(key.row(7), 23);
    EXPECT_EQ(rows("p.layers.0.mlp.gate_up_proj.up").row(0), 24);

    noted_weights falcon; // two query heads, their key and their value, twice
    assemble("falcon", R"({"new_decoder_architecture": true, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1})",
             falcon);
    stored_rows const query = falcon.find("p.h.0.self_attention.query_key_value.query")->stored.value();
    EXPECT_EQ(query.row(7), 7);
    EXPECT_EQ(query.row(8), 16);
}

TEST(assemble_decoder, norms_have_the_numbers_that_their_family_gives_them) {
    noted_weights source;
    EXPECT_FLOAT_EQ(assemble("gemma", "{}", source).blocks[0].attention_norms.input->weight(0), 1.25F);
    noted_weights none;
    decoder const olmo = assemble("olmo", "{}", none);
    EXPECT_TRUE(none.tensors.empty());
    EXPECT_EQ(olmo.blocks[0].attention_norms.input->weight.size(), 0);
    EXPECT_EQ(olmo.final_norm->weight.size(), 0);
    // Without numbers it still normalizes.
    matrix const x = matrix::Random(3, 16);
    EXPECT_NEAR(olmo.final_norm->forward(x).row(0).squaredNorm() / 16, 1, 1e-3);
}

TEST(assemble_decoder, layers_may_divide_their_scores) {
    noted_weights source;
    decoder const model = assemble("gpt2", R"({"scale_attn_by_inverse_layer_idx": true})", source);
    EXPECT_EQ(model.blocks[0].attention.scale, 0.5);
    EXPECT_EQ(model.blocks[1].attention.scale, 0.25);
}

TEST(assemble_decoder, experts_are_layers_with_a_router_and_what_belongs_to_it) {
    noted_weights source;
    decoder const model = assemble("glm4_moe", R"({"num_experts": 3, "num_experts_per_tok": 2,
        "moe_intermediate_size": 8, "n_shared_experts": 2, "routed_scaling_factor": 1.5})",
                                   source);
    EXPECT_FALSE(model.blocks[0].router) << "its first layer is dense";
    block const& b = model.blocks[1];
    EXPECT_EQ(b.experts(), 3);
    EXPECT_EQ(b.mlps.size(), 4U);
    EXPECT_EQ(b.mlps[0].up.shape(), (extents{8, 16}));
    EXPECT_EQ(b.mlps[3].up.shape(), (extents{16, 16}));
    EXPECT_EQ(b.routing.score, nn::router_score::sigmoid);
    EXPECT_EQ(b.routing.factor, 1.5);
    EXPECT_EQ(b.routing.correction, std::vector<float>(3, 0.25F));
    EXPECT_TRUE(source.tensors.contains("p.layers.1.mlp.gate.e_score_correction_bias"));
    EXPECT_FALSE(b.shared_gate);

    noted_weights granite{.there = {"p.layers.0.block_sparse_moe.input_linear.weight",
                                    "p.layers.0.block_sparse_moe.output_linear.weight"}};
    decoder const shared = assemble("granitemoeshared", R"({"shared_intermediate_size": 12})", granite);
    EXPECT_EQ(shared.blocks[0].mlps.back().down.shape(), (extents{16, 12}));
    EXPECT_EQ(shared.blocks[0].mlps.back().up.stored->tensor, "p.layers.0.shared_mlp.input_linear");
    EXPECT_EQ(shared.blocks[0].mlps.back().up.stored->row(0), 12);
    EXPECT_EQ(shared.blocks[0].mlps[2].gate->stored->expert, 2);
}

} // namespace detent
