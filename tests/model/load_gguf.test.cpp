// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/gguf_file.hpp"
#include "detent/io/gguf_writer.hpp"
#include "detent/model/load.hpp"
#include "detent/model/load_gguf.hpp"
#include "detent/model/save_gguf.hpp"
#include "golden/ggml_rows.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace detent {
namespace {

/// A file of a LLaMA of bytes, written again with a change.
class load_gguf_of_llama : public testing::Test {
protected:
    std::filesystem::path const source_ = std::filesystem::path(DETENT_EXAMPLES_DIR) / "models" / "tiny-llama";
    temporary_directory directory_;
    std::filesystem::path const path_ = directory_ / "model.gguf", changed_ = directory_ / "changed.gguf";

    void SetUp() override { save_gguf(load_decoder(source_), source_, path_, "a test"); }

    /// The file without what `dropped` begins with, and with what `add` adds.
    void change(std::string const& dropped, std::function<void(io::gguf_writer&)> const& add = {}) {
        io::gguf_file const file(path_);
        io::gguf_writer writer;
        for (auto const& [key, value] : file.metadata().entries()) {
            if (dropped.empty() || !key.starts_with(dropped)) {
                writer.metadata().add(key, value);
            }
        }
        for (auto const& tensor : file.tensors()) {
            if (dropped.empty() || !tensor.name.starts_with(dropped)) {
                writer.add(tensor.name, *tensor.type, tensor.shape, tensor.bytes);
            }
        }
        if (add) {
            add(writer);
        }
        writer.save(changed_);
    }

    std::string problem() {
        return failure_message([&] { load_gguf(changed_); });
    }
};

TEST_F(load_gguf_of_llama, its_configuration_is_that_of_the_checkpoint) {
    auto const json = read_gguf_configuration(io::gguf_file(path_));
    EXPECT_EQ(json.at("model_type"), "llama");
    EXPECT_EQ(json.at("hidden_size"), 256);
    EXPECT_EQ(json.at("vocab_size"), 256);
    EXPECT_EQ(json.at("tie_word_embeddings"), false);
    EXPECT_EQ(json.at("eos_token_id"), 0);
    decoder const model = load_gguf(path_);
    EXPECT_EQ(model.prefix, "model.");
    EXPECT_EQ(model.blocks[3].output.name, "model.layers.3.self_attn.o_proj");
}

TEST_F(load_gguf_of_llama, a_file_without_a_head_is_tied) {
    change("output.weight");
    EXPECT_FALSE(load_gguf(changed_).lm_head.has_value());
    EXPECT_TRUE(load_gguf(path_).lm_head.has_value());
}

TEST_F(load_gguf_of_llama, what_is_missing_is_named) {
    change("blk.2.attn_v");
    EXPECT_TRUE(contains(problem(), changed_.string()));
    EXPECT_TRUE(contains(problem(), "blk.2.attn_v.weight")) << problem();
    change("llama.attention.head_count");
    EXPECT_TRUE(contains(problem(), "llama.attention.head_count")) << problem();
}

TEST_F(load_gguf_of_llama, nothing_is_left_out) {
    std::vector<std::uint8_t> const zeros(4 * 256);
    change("",
           [&](io::gguf_writer& w) { w.add("blk.0.attn_q_norm.weight", io::ggml_type_named("F32"), {256}, zeros); });
    EXPECT_TRUE(contains(problem(), "'blk.0.attn_q_norm.weight'")) << problem();
    EXPECT_TRUE(contains(problem(), "is no part of the model that is known")) << problem();
}

TEST_F(load_gguf_of_llama, biases_are_in_the_order_of_their_rows) {
    std::vector<std::uint8_t> bytes(4 * 256);
    for (std::size_t row = 0; row < 256; ++row) {
        auto const number = static_cast<float>(row);
        std::memcpy(bytes.data() + 4 * row, &number, 4);
    }
    change("", [&](io::gguf_writer& w) {
        for (int i = 0; i < 4; ++i) {
            for (auto const* name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
                std::string const whole = "blk." + std::to_string(i) + "." + name + ".bias";
                auto const rows = name[5] == 'k' || name[5] == 'v' ? std::size_t{128} : std::size_t{256};
                w.add(whole, io::ggml_type_named("F32"), {static_cast<index_t>(rows)},
                      std::span(bytes).first(4 * rows));
            }
        }
    });
    decoder const model = load_gguf(changed_);
    auto const& bias = model.blocks[0].query.bias; // row 2 i + s of the file is i + 16 s of a head
    EXPECT_EQ(bias(0), 0);
    EXPECT_EQ(bias(1), 2);
    EXPECT_EQ(bias(16), 1);
    EXPECT_EQ(bias(32 + 17), 35);
    EXPECT_EQ(model.blocks[0].value.bias(17), 17);
}

TEST_F(load_gguf_of_llama, types_of_two_levels_are_layers_too) {
    auto const& golden = test::golden_rows().at("q4_K"); // 512 weights
    std::vector<std::uint8_t> bytes;
    for (int run = 0; run < 384; ++run) { // (256, 768) has as many weights
        bytes.insert(bytes.end(), golden.bytes.begin(), golden.bytes.end());
    }
    change("blk.0.ffn_down", [&](io::gguf_writer& w) {
        w.add("blk.0.ffn_down.weight", io::ggml_type_named("Q4_K"), {256, 768}, bytes);
    });
    decoder const model = load_gguf(changed_);
    auto const& down = model.blocks[0].mlps[0].down;
    ASSERT_TRUE(std::holds_alternative<packed_matrix>(down.weight));
    for (index_t i = 0; i < 512; ++i) {
        float const expected = golden.numbers[static_cast<std::size_t>(i)];
        EXPECT_NEAR(down.weight_row(0)(i), expected, 1e-5F * std::abs(expected) + 1e-6F) << i;
    }
}

} // namespace
} // namespace detent
