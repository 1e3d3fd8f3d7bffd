// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <bit>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"
#include "detent/io/tokens.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "detent/text/sentence_piece.hpp"
#include "io/temporary_directory.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

// A field of a Protocol Buffers message: bytes, a number or a float.
std::string field(unsigned number, std::string const& bytes) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string field(unsigned number, unsigned value) {
    return {static_cast<char>(number << 3), static_cast<char>(value)};
}
std::string field(unsigned number, float value) {
    auto const bits = std::bit_cast<std::uint32_t>(value);
    std::string result(1, static_cast<char>(number << 3 | 5));
    for (unsigned i = 0; i < 4; ++i) {
        result += static_cast<char>((bits >> (8 * i)) & 0xFF);
    }
    return result;
}

/// A model of SentencePiece, BPE: <unk>, <s>, </s>, and pieces with a score each.
std::string model_of(std::vector<std::string> const& pieces, std::string const& charsmap = "") {
    std::string result;
    auto const add = [&](std::string const& piece, float score, unsigned type) {
        result += field(1, field(1, piece) + field(2, score) + field(3, type));
    };
    add("<unk>", 0, 2);
    add("<s>", 0, 3);
    add("</s>", 0, 3);
    float score = 0;
    for (auto const& piece : pieces) {
        add(piece, score -= 1, 1);
    }
    result += field(2, field(3, 2U)); // trainer_spec.model_type = BPE
    return result + field(3, charsmap.empty() ? field(1, std::string("identity")) : field(2, charsmap));
}

std::vector<std::string> const pieces{"\u2581a", "ab", "a", "b", "\u2581", "\u00E9"};

#if defined(DETENT_SENTENCEPIECE)

TEST(sentence_piece, gives_its_ids_and_text) {
    sentence_piece_model const model(model_of(pieces), "m");
    ids list;
    model.encode("ab a\u00E9x", list);
    EXPECT_EQ(list, (ids{3, 6, 3, 8, 0}));
    EXPECT_EQ(model.decode(ids{3, 6, 3, 8}), "ab a\u00E9");
    EXPECT_EQ(model.decode(ids{-1, 3, 500}), "a");
    EXPECT_EQ(model.id("ab"), 4);
    EXPECT_EQ(model.id("zz"), std::nullopt);
    EXPECT_EQ(model.id("<unk>"), 0);
    EXPECT_EQ(model.token(8), "\u00E9");
    EXPECT_EQ(model.token(9), std::nullopt);
    EXPECT_EQ(model.largest_id(), 8);
    EXPECT_EQ(model.begin_id(), 1);
    EXPECT_EQ(model.end_id(), 2);
}

TEST(sentence_piece, settings_beside_it) {
    temporary_directory directory;
    detent::io::write_text(directory / "tokenizer.model", model_of(pieces));
    EXPECT_EQ(load_tokenizer(directory.path()).encode("a", true), (ids{1, 3}));
    auto const with = [&](std::string const& settings) {
        detent::io::write_text(directory / "tokenizer_config.json", settings);
        return load_tokenizer(directory.path());
    };
    EXPECT_EQ(with(R"({"add_bos_token": false, "add_eos_token": true})").encode("a", true), (ids{3, 2}));
    EXPECT_EQ(with(R"({"tokenizer_class": "T5Tokenizer"})").encode("a", true), (ids{3, 2}));
    auto const added = with(R"({"added_tokens_decoder": {
        "2": {"content": "</s>", "special": true, "normalized": false}, "9": {"content": "<end>", "special": true}}})");
    EXPECT_EQ(added.encode("a</s>b<end>", false), (ids{3, 2, 7, 6, 9}));
    EXPECT_EQ(added.decode(ids{3, 2, 3, 9}), "a</s>a<end>");
    EXPECT_EQ(added.decode(ids{3, 2, 3, 9}, true), "aa");
    EXPECT_TRUE(contains(failure_message([&] { with(R"({"tokenizer_class": "XLMRobertaTokenizer"})"); }),
                         "'XLMRobertaTokenizer', which detent reads only from a tokenizer.json"));
    EXPECT_TRUE(contains(failure_message([&] { with(R"({"added_tokens_decoder": {"x": {"content": "y"}}})"); }),
                         "has the id 'x'"));
}

TEST(sentence_piece, refuses_what_is_broken) {
    auto const problem = [](std::string const& bytes) {
        return failure_message([&] { sentence_piece_model(bytes, "m"); });
    };
    std::string const good = model_of(pieces);
    EXPECT_EQ(problem(good), "");
    EXPECT_NE(problem(""), "");
    EXPECT_NE(problem("version https://git-lfs.github.com/spec/v1"), "");
    EXPECT_NE(problem(good.substr(0, good.size() / 2)), "");
    EXPECT_TRUE(contains(problem(model_of(pieces, "abcdefghijkl")), "m: has a charsmap that is broken"));
    std::string far(1024 + 8, '\0'); // a map whose root has its children beyond the end
    far[1] = 4;
    far[7] = '\x7F';
    far.back() = '\0';
    EXPECT_TRUE(contains(problem(model_of(pieces, far.substr(0, 120))), "m: "));
}

#else

TEST(sentence_piece, says_that_it_is_missing) {
    EXPECT_TRUE(
        contains(failure_message([] { sentence_piece_model(model_of(pieces), "m"); }), "without SentencePiece"));
}

#endif

TEST(sentence_piece, model_of_stories15m) {
#if defined(DETENT_SENTENCEPIECE)
    auto const directory = shared("models/stories15M");
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << directory << " is missing";
    }
    auto const t = load_tokenizer(directory);
    EXPECT_EQ(t.largest_id(), 31999);
    // What llama2.c's program writes for the beginning of a story.
    EXPECT_EQ(t.encode("Once upon a time, there was a little girl named Lily.", true),
              (ids{1, 9038, 2501, 263, 931, 29892, 727, 471, 263, 2217, 7826, 4257, 365, 2354, 29889}));
    auto const tokens = detent::io::read_tokens(directory / "tinystories_eval_long.tokens.u16");
    // Stories are joined by <s>; each is again the ids of its text, if SentencePiece would have written them so.
    std::size_t stories = 0;
    for (auto begin = tokens.begin(); begin != tokens.end() && stories < 100;) {
        auto const end = std::find(begin + 1, tokens.end(), 1);
        if (*begin == 1 && end != tokens.end()) {
            ids const story(begin, end);
            EXPECT_EQ(t.encode(t.decode(story), true), story);
            ++stories;
        }
        begin = end;
    }
    EXPECT_EQ(stories, 100U);
#else
    GTEST_SKIP() << "built without SentencePiece";
#endif
}

} // namespace
