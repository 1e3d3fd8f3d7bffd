// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/save_gguf.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"
#include "model/round_blocks.hpp"

namespace detent {
namespace {

using test::round_blocks;

/// A LLaMA of bytes: 4 layers, 256 features, 8 heads of 32, 4 of keys and values.
class save_gguf_of_llama : public testing::Test {
protected:
    std::filesystem::path const source_ = std::filesystem::path(DETENT_EXAMPLES_DIR) / "models" / "tiny-llama";
    decoder model_ = load_decoder(source_);
    temporary_directory directory_;
    std::filesystem::path const path_ = directory_ / "model.gguf";

    io::gguf_file saved() {
        save_gguf(model_, source_, path_, "a test");
        return io::gguf_file(path_);
    }

    /// Saved and loaded again: the same codes, scales and logits to the bit, in a tensor of this type.
    void expect_round_trip(std::string const& type) {
        EXPECT_EQ(saved().at("blk.1.ffn_down.weight").type->name, type);
        decoder const loaded = load_gguf(path_);
        ASSERT_EQ(loaded.blocks.size(), model_.blocks.size());
        for (std::size_t i = 0; i < model_.blocks.size(); ++i) {
            for (layer_place const place : model_.blocks[i].places()) {
                auto const& before = model_.blocks[i].linear(place);
                auto const& after = loaded.blocks[i].linear(place);
                EXPECT_EQ(before.name, after.name);
                EXPECT_TRUE(before.weight == after.weight) << before.name;
            }
        }
        std::vector<nn::token_id> const tokens{84, 104, 101, 32, 115, 101, 97, 32};
        EXPECT_TRUE(model_.forward(tokens) == loaded.forward(tokens));
    }
};

TEST_F(save_gguf_of_llama, floats_come_back_to_the_bit) { expect_round_trip("F16"); }

TEST_F(save_gguf_of_llama, symmetric_integers_are_q4_0) {
    round_blocks(model_, int_grid<4, zero::none>{}, absmax_range{}, 32);
    expect_round_trip("Q4_0");
}

TEST_F(save_gguf_of_llama, symmetric_integers_of_8_bits_are_q8_0) {
    round_blocks(model_, int_grid<8, zero::none>{}, absmax_range{}, 32);
    expect_round_trip("Q8_0");
}

TEST_F(save_gguf_of_llama, integers_with_zero_points_are_q4_1) {
    round_blocks(model_, int_grid<4>{}, minmax_range{}, 32);
    expect_round_trip("Q4_1");
}

TEST_F(save_gguf_of_llama, scales_of_whole_rows_are_repeated) {
    round_blocks(model_, int_grid<4, zero::none>{}, absmax_range{}, 0);
    EXPECT_EQ(saved().at("blk.0.attn_q.weight").type->name, "Q4_0");
    std::vector<nn::token_id> const tokens{84, 104, 101, 32};
    EXPECT_TRUE(model_.forward(tokens).isApprox(load_gguf(path_).forward(tokens), 1e-5F));
}

TEST_F(save_gguf_of_llama, queries_and_keys_are_in_the_order_of_neighbours) {
    auto const file = saved();
    auto const numbers = file.floats("blk.2.attn_k.weight");
    matrix const& key = std::get<matrix>(model_.blocks[2].key.weight);
    for (index_t const row : {index_t{0}, index_t{1}, index_t{2}, index_t{31}, index_t{32}, index_t{127}}) {
        index_t const head = row / 32, i = row % 32; // row 2 i + s is row i + 16 s of the head
        index_t const from = head * 32 + i / 2 + i % 2 * 16;
        for (index_t col = 0; col < key.cols(); ++col) {
            ASSERT_EQ(numbers[static_cast<std::size_t>(row * key.cols() + col)], key(from, col)) << row;
        }
    }
    auto const values = file.floats("blk.2.attn_v.weight"); // in no other order
    EXPECT_EQ(values[256], std::get<matrix>(model_.blocks[2].value.weight)(1, 0));
}

TEST_F(save_gguf_of_llama, says_what_llama_cpp_asks_for) {
    auto const file = saved();
    auto const& said = file.metadata();
    EXPECT_EQ(said.get<std::string>("general.architecture"), "llama");
    EXPECT_EQ(said.get<std::string>("general.description"), "a test");
    EXPECT_EQ(said.integer("general.file_type"), 1);
    EXPECT_EQ(said.integer("llama.block_count"), 4);
    EXPECT_EQ(said.integer("llama.context_length"), 1024);
    EXPECT_EQ(said.integer("llama.embedding_length"), 256);
    EXPECT_EQ(said.integer("llama.feed_forward_length"), 768);
    EXPECT_EQ(said.integer("llama.attention.head_count"), 8);
    EXPECT_EQ(said.integer("llama.attention.head_count_kv"), 4);
    EXPECT_EQ(said.integer("llama.rope.dimension_count"), 32);
    EXPECT_EQ(said.get<float>("llama.rope.freq_base"), 10000.0F);
    EXPECT_EQ(said.get<float>("llama.attention.layer_norm_rms_epsilon"), 1e-5F);
    EXPECT_FALSE(said.contains("llama.attention.layer_norm_epsilon"));
    EXPECT_EQ(file.at("blk.0.attn_norm.weight").type->name, "F32");
    EXPECT_EQ(file.tensors().size(), 3U + 4 * 9);
}

TEST_F(save_gguf_of_llama, a_model_of_bytes_gets_a_tokenizer_of_bytes) {
    auto const file = saved();
    auto const& said = file.metadata();
    EXPECT_EQ(said.get<std::string>("tokenizer.ggml.model"), "gpt2");
    auto const& tokens = said.get<std::vector<std::string>>("tokenizer.ggml.tokens");
    ASSERT_EQ(tokens.size(), 256U);
    EXPECT_EQ(tokens[65], "A");
    EXPECT_EQ(tokens[32], "\u0120");
    EXPECT_TRUE(said.get<std::vector<std::string>>("tokenizer.ggml.merges").empty());
    EXPECT_FALSE(said.get<bool>("tokenizer.ggml.add_bos_token"));
}

TEST_F(save_gguf_of_llama, units_of_nvfp4_are_tensors) {
    problem_of const p{e2m1{}, per_tile{1, 16}, absmax_range{}, scale_format{scale_kind::ue4m3, 0x1p-6F}};
    auto& weight = model_.blocks[1].query.weight;
    weight = pack(rtn{}.solve(std::get<matrix>(weight), {}, p));
    auto const file = saved();
    EXPECT_EQ(file.at("blk.1.attn_q.weight").type->name, "NVFP4");
    EXPECT_EQ(file.floats("blk.1.attn_q.scale"), std::vector<float>{0x1p-6F});
    decoder const loaded = load_gguf(path_);
    EXPECT_TRUE(loaded.blocks[1].query.weight == weight);
}

TEST_F(save_gguf_of_llama, codes_may_be_read_as_floats) {
    round_blocks(model_, int_grid<4, zero::none>{}, absmax_range{}, 32);
    save_gguf(model_, source_, path_, "a test");
    decoder const loaded = load_gguf(path_, gguf_weights::floats);
    auto const& down = loaded.blocks[3].mlps[0].down;
    ASSERT_TRUE(std::holds_alternative<matrix>(down.weight));
    EXPECT_EQ(down.weight_row(5), model_.blocks[3].mlps[0].down.weight_row(5));
}

TEST_F(save_gguf_of_llama, obstacles_name_the_layer) {
    round_blocks(model_, int_grid<4, zero::none>{}, absmax_range{}, 16);
    auto const obstacle = gguf_obstacle(model_);
    EXPECT_TRUE(contains(obstacle, "model.layers.0.self_attn.q_proj")) << obstacle;
    EXPECT_TRUE(contains(obstacle, "Q4_0: its scales are each of 32 weights, not of 16")) << obstacle;
    EXPECT_EQ(failure_message([&] { save_gguf(model_, source_, path_, ""); }), path_.string() + ": " + obstacle);
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(save_gguf_of_llama, there_is_no_type_of_7_bits) {
    round_blocks(model_, int_grid<7, zero::none>{}, absmax_range{}, 32);
    EXPECT_TRUE(contains(gguf_obstacle(model_), "none has 7 bits")) << gguf_obstacle(model_);
}

TEST_F(save_gguf_of_llama, a_model_without_a_tokenizer_is_an_error) {
    model_.configuration.vocabulary = 300;
    EXPECT_TRUE(contains(failure_message([&] { save_gguf(model_, source_, path_, ""); }), "has no tokenizer"));
}

/// The families whose computation llama.cpp does not have, or not with these switches.
std::string expected_obstacle(std::string const& fixture) {
    static std::map<std::string, std::string> const all{
        {"falcon-rw-bf16", "'falcon' has another form of its parallel branches"},
        {"gemma2-f32", "'gemma2' has another form of the scale"},
        {"gemma3-f32", "'gemma3' has another form of the scale"},
        {"gptj-f32", "no architecture for models of type 'gptj'"},
        {"opt-350m-f32", "no architecture for models of type 'opt'"},
        {"smollm3-bf16", "'smollm3' has another form of the rotary positions of layer 1"}};
    auto const found = all.find(fixture);
    return found != all.end() ? found->second : "";
}

class save_gguf_of_family : public testing::TestWithParam<test::family_fixture> {};
INSTANTIATE_TEST_SUITE_P(, save_gguf_of_family, testing::ValuesIn(test::family_fixtures("decoder")),
                         test::fixture_name);

TEST_P(save_gguf_of_family, comes_back_as_it_was_or_is_refused) {
    auto const& source = GetParam().directory;
    decoder const model = load_decoder(source);
    std::string const obstacle = gguf_obstacle(model), expected = expected_obstacle(GetParam().name());
    EXPECT_EQ(obstacle.empty(), expected.empty()) << obstacle;
    EXPECT_TRUE(contains(obstacle, expected)) << obstacle;
    if (!obstacle.empty()) {
        return;
    }
    temporary_directory const directory;
    save_gguf(model, source, directory / "model.gguf", "a test");
    decoder const loaded = load_gguf(directory / "model.gguf");
    EXPECT_EQ(gguf_obstacle(loaded), "");
    auto const tokens = test::family_tokens();
    std::vector<nn::token_id> const some(tokens.begin(), tokens.begin() + 16); // no longer than the narrowest window
    matrix const before = model.forward(some), after = loaded.forward(some);
    EXPECT_LE((before - after).cwiseAbs().maxCoeff(), 1e-5F * before.cwiseAbs().maxCoeff());
}

} // namespace
} // namespace detent
