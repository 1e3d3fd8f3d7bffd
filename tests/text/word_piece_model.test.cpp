// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/word_piece_model.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using nlohmann::json;

TEST(word_piece_model, takes_the_longest_token_from_the_left) {
    json model = json_of(R"({"type": "WordPiece", "vocab": {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "##a": 4,
        "u": 5, "\u00e4": 6, "##\u00e4\u00f6": 7, "##\u00e4": 8}})");
    EXPECT_EQ(encoded(model, "unaffable"), (ids{1, 2, 3}));
    EXPECT_EQ(encoded(model, "una"), (ids{1, 4}));
    EXPECT_EQ(encoded(model, "unx"), ids{0});
    EXPECT_EQ(encoded(model, "u"), ids{5});
    EXPECT_EQ(encoded(model, "\u00e4\u00e4\u00f6\u00e4"), (ids{6, 7, 8}));
    EXPECT_EQ(encoded(model, "\u00e4\u00f6"), ids{0});
    model["max_input_chars_per_word"] = 3;
    EXPECT_EQ(encoded(model, "una"), (ids{1, 4}));
    EXPECT_EQ(encoded(model, "unaa"), ids{0});
    model["continuing_subword_prefix"] = "";
    EXPECT_EQ(encoded(model, "unu"), (ids{1, 5}));
}

TEST(word_piece_model, needs_a_token_for_what_is_unknown) {
    json const model = json_of(R"({"type": "WordPiece", "vocab": {"a": 0}})");
    EXPECT_EQ(failure_message([&] { encoded(model, "a"); }), "model, field 'unk_token': is not in the vocabulary");
}

TEST(word_level_model, knows_whole_pieces) {
    json model = json_of(R"({"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "ab": 1}})");
    EXPECT_EQ(encoded(model, "ab"), ids{1});
    EXPECT_EQ(encoded(model, "a"), ids{0});
    model["unk_token"] = "!";
    EXPECT_NE(failure_message([&] { encoded(model, "a"); }), "");
}

} // namespace
