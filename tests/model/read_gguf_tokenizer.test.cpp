// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/gguf_metadata.hpp"
#include "detent/io/text_file.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/read_gguf_tokenizer.hpp"
#include "detent/model/write_gguf_tokenizer.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "io/failure_message.hpp"
#include "text/text_support.hpp"

namespace detent {
namespace {

using texts = std::vector<std::string>;

io::gguf_metadata byte_pairs() {
    io::gguf_metadata metadata;
    metadata.add("tokenizer.ggml.model", std::string("gpt2"));
    metadata.add("tokenizer.ggml.pre", std::string("gpt-2"));
    metadata.add("tokenizer.ggml.tokens", texts{"a", "b", "\u0120", "ab", "\u0120ab", "<end>"});
    metadata.add("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1, 1, 1, 1, 3});
    metadata.add("tokenizer.ggml.merges", texts{"a b", "\u0120 ab"});
    metadata.add("tokenizer.ggml.bos_token_id", std::uint32_t{5});
    return metadata;
}

TEST(read_gguf_tokenizer, byte_pairs_are_read) {
    NEEDS_UNICODE();
    auto const metadata = byte_pairs();
    ASSERT_TRUE(has_gguf_tokenizer(metadata));
    auto const tokenizer = read_gguf_tokenizer(metadata);
    EXPECT_EQ(tokenizer.encode("ab ab a<end>b", true), (ids{3, 4, 2, 0, 5, 1}));
    EXPECT_EQ(tokenizer.decode(ids{3, 4, 2, 0, 5, 1}, true), "ab ab ab");
}

TEST(read_gguf_tokenizer, a_beginning_is_added_where_the_file_says_so) {
    NEEDS_UNICODE();
    auto metadata = byte_pairs();
    metadata.add("tokenizer.ggml.add_bos_token", true);
    EXPECT_EQ(read_gguf_tokenizer(metadata).encode("ab", true), (ids{5, 3}));
    EXPECT_EQ(read_gguf_tokenizer(metadata).encode("ab", false), (ids{3}));
}

/// SentencePiece's BPE as llama.cpp stores it has scores in place of merges.
TEST(read_gguf_tokenizer, scores_say_what_is_merged_first) {
    NEEDS_UNICODE();
    io::gguf_metadata metadata;
    metadata.add("tokenizer.ggml.model", std::string("llama"));
    metadata.add("tokenizer.ggml.tokens",
                 texts{"<unk>", "<s>", "a", "b", "c", "ab", "bc", "\u2581", "\u2581a", "<0x64>"});
    metadata.add("tokenizer.ggml.scores", std::vector<float>{0, 0, -9, -9, -9, -3, -2, -9, -4, 0});
    metadata.add("tokenizer.ggml.token_type", std::vector<std::int32_t>{2, 3, 1, 1, 1, 1, 1, 1, 1, 6});
    metadata.add("tokenizer.ggml.bos_token_id", std::uint32_t{1});
    metadata.add("tokenizer.ggml.unknown_token_id", std::uint32_t{0});
    auto const tokenizer = read_gguf_tokenizer(metadata);
    EXPECT_EQ(tokenizer.encode("abc", true), (ids{1, 8, 6})); // bc before ab, then the space and a
    EXPECT_EQ(tokenizer.encode("ab d", true), (ids{1, 7, 5, 7, 9}));
    EXPECT_EQ(tokenizer.decode(ids{1, 7, 5, 7, 9}, true), "ab d");
}

TEST(read_gguf_tokenizer, unknown_kinds_are_errors) {
    io::gguf_metadata metadata;
    EXPECT_FALSE(has_gguf_tokenizer(metadata));
    metadata.add("tokenizer.ggml.model", std::string("rwkv"));
    EXPECT_TRUE(contains(failure_message([&] { read_gguf_tokenizer(metadata); }), "is 'rwkv', which is not read"));
}

TEST(read_gguf_tokenizer, those_of_real_models_give_the_same_ids) {
    NEEDS_UNICODE();
    for (auto const* name : {"models/stories15M", "models/novella-30m"}) {
        auto const directory = shared(name);
        if (!std::filesystem::exists(directory)) {
            GTEST_SKIP() << directory;
        }
        io::gguf_metadata metadata;
        add_gguf_tokenizer(metadata, directory, read_configuration(directory / "config.json"));
        std::string const text = io::read_text(DETENT_EXAMPLES_DIR "/text/novels_evaluation.txt").substr(0, 20000) +
                                 "\u00e9\U0001f600 1234\n\n";
        auto const expected = text::load_tokenizer(directory).encode(text, true);
        EXPECT_EQ(read_gguf_tokenizer(metadata).encode(text, true), expected) << name;
    }
}

} // namespace
} // namespace detent
