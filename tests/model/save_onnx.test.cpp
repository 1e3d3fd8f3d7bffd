// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/load.hpp"
#include "detent/model/outline.hpp"
#include "detent/model/save_onnx.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "io/onnx_reader.hpp"
#include "io/onnxruntime.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"
#include "model/round_blocks.hpp"

namespace detent {
namespace {

using test::round_blocks;

/// ONNX Runtime computes from `model.onnx` in `directory` what the model does of the first tokens of `text`: the
/// largest difference of logits over the largest logit.
void expect_same_logits(decoder const& model, std::filesystem::path const& directory,
                        std::vector<nn::token_id> const& text, float tolerance) {
    std::vector<std::int64_t> const ids(text.begin(), text.end());
    auto const made = run_onnxruntime(directory, ids);
    DETENT_SKIP_WITHOUT_ONNXRUNTIME(made);
    matrix const expected = model.forward(text); // (token, vocabulary)
    ASSERT_EQ(std::ssize(*made), expected.size());
    Eigen::Map<matrix const> const logits(made->data(), expected.rows(), expected.cols());
    EXPECT_LT((logits - expected).cwiseAbs().maxCoeff() / expected.cwiseAbs().maxCoeff(), tolerance);
}

/// A LLaMA of bytes: 4 layers, 256 features, 8 heads of 32, 4 of keys and values.
class save_onnx_of_llama : public testing::Test {
protected:
    std::filesystem::path const source_ = std::filesystem::path(DETENT_EXAMPLES_DIR) / "models" / "tiny-llama";
    decoder model_ = load_decoder(source_);
    temporary_directory directory_;
    std::filesystem::path const path_ = directory_ / "model.onnx";

    onnx_stored_model saved() {
        save_onnx(model_, path_, "a test");
        return onnx_stored_model(path_);
    }

    void expect_runs() {
        std::string const text = "The sea was calm, and the captain stood on the deck with a glass in his hand. ";
        save_onnx(model_, path_, "a test");
        expect_same_logits(model_, directory_.path(), {text.begin(), text.end()}, 1e-5F);
    }
};

TEST_F(save_onnx_of_llama, floats_run) { expect_runs(); }

TEST_F(save_onnx_of_llama, integers_with_zero_points_run) {
    round_blocks(model_, int_grid<4>{}, minmax_range{}, 32);
    expect_runs();
}

TEST_F(save_onnx_of_llama, symmetric_integers_of_8_bits_run) {
    round_blocks(model_, int_grid<8, zero::none>{}, absmax_range{}, 0);
    expect_runs();
}

TEST_F(save_onnx_of_llama, layers_are_products_and_all_else_plain_operators) {
    round_blocks(model_, int_grid<4>{}, minmax_range{}, 64);
    auto const file = saved();
    auto const products = file.of_type("MatMulNBits");
    ASSERT_EQ(products.size(), 4U * 7);
    std::set<std::string> plain;
    for (auto const& node : file.nodes) {
        EXPECT_EQ(node.domain, node.type == "MatMulNBits" ? "com.microsoft" : "");
        plain.insert(node.type);
    }
    EXPECT_EQ(plain, (std::set<std::string>{
                         "Add",         "Cast",    "Gather",     "Identity",   "LessOrEqual", "MatMul",    "Mul",
                         "MatMulNBits", "Range",   "Reciprocal", "ReduceMean", "Reshape",     "Shape",     "Sigmoid",
                         "Sin",         "Softmax", "Sqrt",       "Sub",        "Transpose",   "Unsqueeze", "Where"}));
    EXPECT_EQ(products[0].outputs[0], "model.layers.0.self_attn.q_proj/MatMulNBits");
    EXPECT_EQ(products[0].inputs[1], "model.layers.0.self_attn.q_proj.codes");
    EXPECT_EQ(products[0].integers.at("block_size"), 64);
    EXPECT_EQ(file.of_type("Softmax").size(), 4U);
    EXPECT_EQ(file.of_type("Sin").size(), 2U); // all blocks share their rotations
    auto const& down = file.tensors.at("model.layers.3.mlp.down_proj.codes");
    EXPECT_EQ(down.shape, (std::vector<std::int64_t>{256, 12, 32}));
    auto const& packed = std::get<packed_matrix>(model_.blocks[3].mlps[0].down.weight);
    EXPECT_TRUE(std::equal(down.bytes.begin(), down.bytes.end(), packed.codes.data(),
                           [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; }));
    auto const& embeddings = file.tensors.at("model.embed_tokens.weight");
    EXPECT_EQ(embeddings.type, 10); // F16 has all of its numbers
    EXPECT_EQ(embeddings.shape, (std::vector<std::int64_t>{256, 256}));
    auto const frequencies = file.tensors.at("rotary.turns").numbers<double>();
    ASSERT_EQ(frequencies.size(), 32U);
    EXPECT_EQ(frequencies[0], 1);
    EXPECT_EQ(frequencies[3], frequencies[19]);
}

TEST_F(save_onnx_of_llama, every_value_is_made_before_it_is_used) {
    auto const file = saved();
    std::set<std::string> known{"input_ids"};
    for (auto const& [name, tensor] : file.tensors) {
        EXPECT_TRUE(known.insert(name).second) << name;
    }
    for (auto const& node : file.nodes) {
        for (auto const& input : node.inputs) {
            EXPECT_TRUE(known.contains(input)) << node.type << " of " << input;
        }
        for (auto const& output : node.outputs) {
            EXPECT_TRUE(known.insert(output).second) << output;
        }
    }
    EXPECT_TRUE(known.contains("logits"));
}

TEST_F(save_onnx_of_llama, large_models_are_two_files) {
    save_onnx(model_, path_, "a test", 1'000'000);
    EXPECT_LT(std::filesystem::file_size(path_), 300'000U);
    std::vector<nn::token_id> const text{84, 104, 101, 32, 115, 101, 97};
    expect_same_logits(model_, directory_.path(), text, 1e-5F);
}

TEST_F(save_onnx_of_llama, obstacles_are_told_of_outlines) {
    auto const c = read_configuration(source_ / "config.json");
    auto const of = [&](char const* text) { return onnx_obstacle(outline_decoder(c, spec::parse(text))); };
    EXPECT_EQ(of("int4:g32:gptq"), "");
    EXPECT_EQ(of("int4:g32:gptq:act"), "");
    EXPECT_EQ(of("int3:g32:gptq"), "layer 'model.layers.0.self_attn.q_proj' has no product in ONNX Runtime: it has 3 "
                                   "bits, ONNX Runtime's products 2, 4 or 8");
    EXPECT_EQ(of("mxfp4:gptq"), "layer 'model.layers.0.self_attn.q_proj' has no product in ONNX Runtime: its numbers "
                                "are no integers");
    EXPECT_NE(of("int4:g24").find("its scales are of 24 inputs"), std::string::npos);
}

TEST_F(save_onnx_of_llama, refuses_what_it_cannot_hold) {
    round_blocks(model_, int_grid<3>{}, minmax_range{}, 32);
    EXPECT_NE(failure_message([&] { saved(); }).find("has no product in ONNX Runtime"), std::string::npos);
    EXPECT_EQ(directory_.entries(), 0);
}

class onnx_of_family : public testing::TestWithParam<test::family_fixture> {};

INSTANTIATE_TEST_SUITE_P(, onnx_of_family, testing::ValuesIn(test::family_fixtures("decoder")), test::fixture_name);

TEST_P(onnx_of_family, runs_or_is_refused) {
    decoder const model = load_decoder(GetParam().directory);
    bool const has_experts = std::ranges::any_of(model.blocks, [](block const& b) { return b.experts() > 0; });
    auto const obstacle = onnx_obstacle(model);
    if (!obstacle.empty()) {
        RecordProperty("obstacle", obstacle);
        EXPECT_TRUE(has_experts || contains(obstacle, "depend on the length of the sequence")) << obstacle;
        return;
    }
    temporary_directory const directory;
    save_onnx(model, directory / "model.onnx", "a test");
    auto const all = test::family_tokens();
    expect_same_logits(model, directory.path(), {all.begin(), all.begin() + 48}, 1e-5F);
}

} // namespace
} // namespace detent
