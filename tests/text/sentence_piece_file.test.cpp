// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstring>
#include <string>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"
#include "detent/text/sentence_piece_file.hpp"
#include "io/failure_message.hpp"
#include "text/text_support.hpp"

namespace detent::text {
namespace {

/// A field of bytes with a number below 16 and fewer than 128 bytes.
std::string bytes_field(int number, std::string const& bytes) {
    return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}

/// A field that is an integer below 128; numbers above 15 take two bytes.
std::string integer_field(int number, int value) {
    int const key = number << 3;
    std::string const first = key < 128
                                  ? std::string{static_cast<char>(key)}
                                  : std::string{static_cast<char>((key & 127) | 128), static_cast<char>(key >> 7)};
    return first + static_cast<char>(value);
}

std::string piece(std::string const& text, float score, int type = 0) {
    std::string number(4, '\0');
    std::memcpy(number.data(), &score, 4);
    return bytes_field(1, bytes_field(1, text) + std::string{2 << 3 | 5} + number +
                              (type > 0 ? integer_field(3, type) : ""));
}

std::string const model = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("\u2581a", -1.5F) + piece("<0x0A>", 0, 6) +
                          bytes_field(2, integer_field(3, 2) + integer_field(41, 1) + integer_field(42, 3)) +
                          bytes_field(3, integer_field(3, 0));

TEST(sentence_piece_file, tokens_have_text_score_and_kind) {
    auto const file = read_sentence_piece(model, "a test");
    ASSERT_EQ(file.pieces.size(), 4U);
    EXPECT_EQ(file.pieces[0].type, sentence_piece_file::kind::unknown);
    EXPECT_EQ(file.pieces[2].text, "\u2581a");
    EXPECT_EQ(file.pieces[2].score, -1.5F);
    EXPECT_EQ(file.pieces[2].type, sentence_piece_file::kind::normal);
    EXPECT_EQ(file.pieces[3].type, sentence_piece_file::kind::byte);
}

TEST(sentence_piece_file, what_is_not_said_has_a_default) {
    auto const file = read_sentence_piece(model, "a test");
    EXPECT_FALSE(file.is_unigram);
    EXPECT_FALSE(file.adds_space);
    EXPECT_TRUE(file.removes_spaces);
    EXPECT_EQ(file.unknown_id, 0);
    EXPECT_EQ(file.begin_id, 1);
    EXPECT_EQ(file.end_id, 3);
    EXPECT_EQ(file.padding_id, -1);
}

TEST(sentence_piece_file, every_beginning_of_a_file_is_read_or_refused) {
    for (std::size_t size = 0; size < model.size(); ++size) {
        auto const problem = failure_message([&] { read_sentence_piece(model.substr(0, size), "a test"); });
        EXPECT_TRUE(problem.empty() || problem.starts_with("a test: ")) << size;
    }
    EXPECT_TRUE(contains(failure_message([] { read_sentence_piece("{}", "a test"); }), "is no model of SentencePiece"));
}

TEST(sentence_piece_file, words_are_refused) {
    auto const words = piece("a", 0) + bytes_field(2, integer_field(3, 3));
    EXPECT_TRUE(contains(failure_message([&] { read_sentence_piece(words, "a test"); }), "neither Unigram nor BPE"));
}

TEST(sentence_piece_file, llama_has_32000_tokens) {
    auto const path = shared("models/stories15M/tokenizer.model");
    if (!std::filesystem::exists(path)) {
        GTEST_SKIP() << path;
    }
    auto const file = read_sentence_piece(io::read_text(path), path.string());
    EXPECT_EQ(file.pieces.size(), 32000U);
    EXPECT_FALSE(file.is_unigram);
    EXPECT_EQ(file.pieces[1].text, "<s>");
    EXPECT_EQ(file.pieces[13].text, "<0x0A>");
}

} // namespace
} // namespace detent::text
