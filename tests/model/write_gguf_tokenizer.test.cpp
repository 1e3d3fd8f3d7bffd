// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/gguf_metadata.hpp"
#include "detent/io/text_file.hpp"
#include "detent/model/write_gguf_tokenizer.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "text/text_support.hpp"

namespace detent {
namespace {

/// A directory with a byte-level BPE of three letters.
class write_gguf_tokenizer : public testing::Test {
protected:
    nlohmann::json json_ = json_of(R"({"added_tokens": [{"id": 5, "content": "<end>", "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "\u0120": 2, "ab": 3, "\u0120ab": 4},
                  "merges": [["a", "b"], ["\u0120", "ab"]]}})");
    nlohmann::json settings_ = json_of(R"({"eos_token": "<end>", "chat_template": "{{ messages }}"})");
    index_t vocabulary_ = 8;
    temporary_directory directory_;

    io::gguf_metadata written() {
        io::write_text(directory_ / "tokenizer.json", json_.dump());
        io::write_text(directory_ / "tokenizer_config.json", settings_.dump());
        io::gguf_metadata metadata;
        add_gguf_tokenizer(metadata, directory_.path(), {.vocabulary = vocabulary_});
        return metadata;
    }

    std::string problem() {
        return failure_message([&] { written(); });
    }
};

TEST_F(write_gguf_tokenizer, byte_pairs_are_written) {
    NEEDS_UNICODE();
    auto const said = written();
    using texts = std::vector<std::string>;
    EXPECT_EQ(said.get<std::string>("tokenizer.ggml.model"), "gpt2");
    EXPECT_EQ(said.get<std::string>("tokenizer.ggml.pre"), "gpt-2");
    EXPECT_EQ(said.get<texts>("tokenizer.ggml.tokens"),
              (texts{"a", "b", "\u0120", "ab", "\u0120ab", "<end>", "[PAD6]", "[PAD7]"}));
    EXPECT_EQ(said.get<std::vector<std::int32_t>>("tokenizer.ggml.token_type"),
              (std::vector<std::int32_t>{1, 1, 1, 1, 1, 3, 5, 5}));
    EXPECT_EQ(said.get<texts>("tokenizer.ggml.merges"), (texts{"a b", "\u0120 ab"}));
    EXPECT_EQ(said.integer("tokenizer.ggml.eos_token_id"), 5);
    EXPECT_FALSE(said.contains("tokenizer.ggml.bos_token_id"));
    EXPECT_FALSE(said.get<bool>("tokenizer.ggml.add_bos_token"));
    EXPECT_EQ(said.get<std::string>("tokenizer.chat_template"), "{{ messages }}");
}

TEST_F(write_gguf_tokenizer, words_have_the_names_of_their_patterns) {
    NEEDS_UNICODE();
    auto const split = [&](std::string const& numbers) {
        json_["pre_tokenizer"] = {{"type", "Sequence"},
                                  {"pretokenizers",
                                   {{{"type", "Split"},
                                     {"pattern",
                                      {{"Regex", R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" + numbers +
                                                     R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
                                     {"behavior", "Isolated"},
                                     {"invert", false}},
                                    {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    };
    split(R"(\p{N})");
    EXPECT_EQ(written().get<std::string>("tokenizer.ggml.pre"), "qwen2");
    split(R"(\p{N}{1,3})");
    EXPECT_EQ(written().get<std::string>("tokenizer.ggml.pre"), "llama-bpe");
    split(R"(\p{N}{1,7})");
    EXPECT_TRUE(contains(problem(), "cuts words by a pattern that llama.cpp has no name for")) << problem();
}

TEST_F(write_gguf_tokenizer, bytes_for_unknown_characters_make_it_sentencepiece) {
    NEEDS_UNICODE();
    json_["model"]["byte_fallback"] = true;
    json_["model"]["unk_token"] = "b";
    json_["normalizer"] = {{"type", "Prepend"}, {"prepend", "\u2581"}};
    json_.erase("pre_tokenizer");
    json_["decoder"] = {{"type", "ByteFallback"}};
    auto const said = written();
    EXPECT_EQ(said.get<std::string>("tokenizer.ggml.model"), "llama");
    EXPECT_TRUE(said.get<bool>("tokenizer.ggml.add_space_prefix"));
    auto const& scores = said.get<std::vector<float>>("tokenizer.ggml.scores");
    EXPECT_EQ(scores[3], -1); // what is merged first
    EXPECT_EQ(scores[4], -2);
    EXPECT_EQ(said.get<std::vector<std::int32_t>>("tokenizer.ggml.token_type")[1], 2);
    EXPECT_FALSE(said.contains("tokenizer.ggml.merges"));
}

TEST_F(write_gguf_tokenizer, more_tokens_than_the_model_has_are_an_error) {
    vocabulary_ = 5;
    EXPECT_TRUE(contains(problem(), "gives the token '<end>' the id 5, but the model has 5 tokens")) << problem();
}

TEST_F(write_gguf_tokenizer, other_kinds_are_refused) {
    json_["model"] = {{"type", "WordLevel"}, {"vocab", {{"a", 0}}}, {"unk_token", "a"}};
    EXPECT_TRUE(contains(problem(), "is no BPE")) << problem();
    EXPECT_EQ(gguf_tokenizer_obstacle(directory_.path(), {.vocabulary = vocabulary_}), problem());
    temporary_directory const none;
    EXPECT_TRUE(contains(gguf_tokenizer_obstacle(none.path(), {.vocabulary = vocabulary_}), "has no tokenizer"));
    EXPECT_EQ(gguf_tokenizer_obstacle(none.path(), {.vocabulary = 256}), ""); // bytes
}

} // namespace
} // namespace detent
