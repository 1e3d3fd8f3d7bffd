// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/dequantize_decoder.hpp"
#include "detent/model/gguf_checkpoint.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/model_text.hpp"
#include "detent/model/save.hpp"
#include "detent/model/save_gguf.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"

namespace detent {
namespace {

/// What a model of a GGUF file becomes as a checkpoint.
decoder as_checkpoint(std::filesystem::path const& file, decoder const& model, temporary_directory const& directory,
                      std::optional<io::packed_layout> layout = {}) {
    write_gguf_source(file, model, directory / "source");
    save_decoder(model, directory / "source", directory / "saved", "a test", layout);
    return load_decoder(directory / "saved");
}

class checkpoint_of_gguf : public testing::Test {
protected:
    std::filesystem::path const origin_ = std::filesystem::path(DETENT_EXAMPLES_DIR) / "models" / "tiny-llama";
    decoder model_ = load_decoder(origin_);
    temporary_directory directory_;
    std::filesystem::path const file_ = directory_ / "model.gguf";
    std::vector<nn::token_id> const tokens_{84, 104, 101, 32, 115, 101, 97, 32};

    void round() {
        problem_of const p{int_grid<4, zero::none>{}, per_tile{1, 32}, absmax_range{}};
        for (block& b : model_.blocks) {
            for (layer_place const place : b.places()) {
                auto& weight = b.linear(place).weight;
                weight = pack(rtn{}.solve(std::get<matrix>(weight), {}, p));
            }
        }
    }
};

TEST_F(checkpoint_of_gguf, floats_come_back_to_the_bit) {
    save_gguf(model_, origin_, file_, "a test");
    auto const loaded = as_checkpoint(file_, load_gguf(file_), directory_);
    EXPECT_TRUE(loaded.forward(tokens_) == model_.forward(tokens_));
    io::checkpoint const before(origin_), after(directory_ / "saved");
    ASSERT_EQ(after.names(), before.names());
    for (auto const& name : before.names()) {
        EXPECT_EQ(after.at(name).shape, before.at(name).shape) << name;
    }
    EXPECT_EQ(after.at("model.embed_tokens.weight").type, io::dtype::f16);
}

TEST_F(checkpoint_of_gguf, codes_come_back_to_the_bit) {
    round();
    save_gguf(model_, origin_, file_, "a test");
    auto const loaded = as_checkpoint(file_, load_gguf(file_), directory_, io::packed_layout::gptq);
    auto const stored = load_gguf(file_);
    auto const codes_of = [](decoder const& model) {
        return std::get<packed_matrix>(model.blocks[2].mlps[0].up.weight).codes;
    };
    EXPECT_TRUE(codes_of(loaded) == codes_of(stored));
    EXPECT_TRUE(loaded.forward(tokens_).isApprox(stored.forward(tokens_), 1e-5F)); // zero points are 8 there
    EXPECT_EQ(io::read_json(directory_ / "saved" / "config.json").at("quantization_config").at("bits"), 4);
    io::checkpoint const after(directory_ / "saved");
    EXPECT_FALSE(after.contains("model.layers.0.mlp.down_proj.weight"));
    EXPECT_TRUE(after.contains("model.layers.0.mlp.down_proj.qweight"));
}

TEST_F(checkpoint_of_gguf, numbers_of_codes_become_floats) {
    round();
    save_gguf(model_, origin_, file_, "a test");
    auto floats = load_gguf(file_);
    EXPECT_EQ(dequantize_decoder(floats), 4 * 7);
    auto const loaded = as_checkpoint(file_, floats, directory_);
    EXPECT_TRUE(loaded.forward(tokens_) == floats.forward(tokens_));
    EXPECT_FALSE(io::read_json(directory_ / "saved" / "config.json").contains("quantization_config"));
}

TEST_F(checkpoint_of_gguf, the_source_takes_no_room_and_has_the_tokenizer) {
    save_gguf(model_, origin_, file_, "a test");
    auto const loaded = load_gguf(file_);
    write_gguf_source(file_, loaded, directory_ / "source");
    auto const configuration = io::read_json(directory_ / "source" / "config.json");
    EXPECT_EQ(configuration.at("architectures").at(0), "LlamaForCausalLM");
    EXPECT_EQ(configuration.at("model_type"), "llama");
    io::checkpoint const source(directory_ / "source");
    EXPECT_EQ(source.at("model.norm.weight").bytes[0], 0);
    model_text const text(directory_ / "source", loaded.configuration);
    EXPECT_EQ(text.prompt("The sea"), (std::vector<nn::token_id>{84, 104, 101, 32, 115, 101, 97}));
    EXPECT_TRUE(std::filesystem::exists(directory_ / "source" / "tokenizer_config.json"));
}

class checkpoint_of_family : public testing::TestWithParam<test::family_fixture> {};

INSTANTIATE_TEST_SUITE_P(, checkpoint_of_family, testing::ValuesIn(test::family_fixtures("decoder")),
                         test::fixture_name);

TEST_P(checkpoint_of_family, computes_what_the_file_does) {
    decoder const model = load_decoder(GetParam().directory);
    if (!gguf_obstacle(model).empty()) {
        return;
    }
    temporary_directory const directory;
    auto const file = directory / "model.gguf";
    if (contains(failure_message([&] { save_gguf(model, GetParam().directory, file, "a test"); }), "tokenizer")) {
        return; // that of the fixture is none
    }
    decoder const stored = load_gguf(file);
    decoder const loaded = as_checkpoint(file, stored, directory);
    auto const all = test::family_tokens();
    std::vector<nn::token_id> const tokens(all.begin(), all.begin() + 16);
    EXPECT_TRUE(loaded.forward(tokens).isApprox(stored.forward(tokens), 1e-6F));
}

} // namespace
} // namespace detent
