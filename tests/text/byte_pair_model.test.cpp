// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstddef>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/byte_pair_model.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using nlohmann::json;

// Looks through all neighbours for the first of the merges, and makes one token of the leftmost, until there is none.
std::vector<std::string> merged_slowly(std::vector<std::string> tokens, std::vector<json> const& merges) {
    while (true) {
        for (auto const& merge : merges) {
            for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
                if (tokens[i] == merge[0] && tokens[i + 1] == merge[1]) {
                    tokens[i] += tokens[i + 1];
                    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                    goto again;
                }
            }
        }
        return tokens;
    again:;
    }
}

TEST(byte_pair_model, merges_as_looking_through_all_pairs_does) {
    std::mt19937 random(1);
    for (int round = 0; round < 40; ++round) {
        std::vector<std::string> tokens{"a", "b", "\u00E4"};
        json model{{"type", "BPE"}, {"merges", json::array()}};
        for (int i = 0; i < 12; ++i) {
            std::string const left = tokens[random() % tokens.size()];
            std::string const right = tokens[random() % tokens.size()];
            if (std::ranges::find(tokens, left + right) == tokens.end()) { // else another pair makes the same token
                model["merges"].push_back({left, right});
                tokens.push_back(left + right);
            }
        }
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            model["vocab"][tokens[i]] = i;
        }
        for (int i = 0; i < 20; ++i) {
            std::vector<std::string> characters;
            std::string piece;
            for (std::size_t n = 1 + random() % 30; n > 0; --n) {
                characters.push_back(tokens[random() % 3]);
                piece += characters.back();
            }
            ids wanted;
            for (auto const& token : merged_slowly(characters, model["merges"])) {
                wanted.push_back(model["vocab"][token]);
            }
            ASSERT_EQ(encoded(model, piece), wanted) << model << ' ' << piece;
        }
    }
}

TEST(byte_pair_model, options) {
    json model = json_of(R"({"vocab": {"a": 0, "b": 1, "ab": 2, "<u>": 3, "abb": 4}, "merges": ["a b"]})");
    EXPECT_EQ(encoded(model, "abb"), (ids{2, 1}));
    EXPECT_EQ(encoded(model, "axb"), (ids{2})); // what is unknown is left out, before pairs are merged
    model["ignore_merges"] = true;
    EXPECT_EQ(encoded(model, "abb"), ids{4});
    model["unk_token"] = "<u>";
    EXPECT_EQ(encoded(model, "xxaxx"), (ids{3, 3, 0, 3, 3}));
    model["fuse_unk"] = true;
    EXPECT_EQ(encoded(model, "xxaxx"), (ids{3, 0, 3}));
    model["unk_token"] = "missing";
    EXPECT_TRUE(contains(failure_message([&] { encoded(model, "x"); }), "'x', for which there is no token"));
}

TEST(byte_pair_model, bytes_of_unknown_characters) {
    json model = json_of(R"({"vocab": {"a": 0, "<u>": 1}, "merges": [], "byte_fallback": true, "unk_token": "<u>"})");
    EXPECT_EQ(encoded(model, "a\u00E4"), (ids{0, 1})); // not all bytes have tokens
    model["vocab"]["<0xC3>"] = 5;
    model["vocab"]["<0xA4>"] = 6;
    EXPECT_EQ(encoded(model, "a\u00E4a\u00E5"), (ids{0, 5, 6, 0, 1}));
}

TEST(byte_pair_model, merges_of_others_than_characters) {
    json model = json_of(R"({"vocab": {"a": 0, "<u>": 1, "<0xC3>": 2, "<0xA4>": 3, "<0xC3><0xA4>": 4, "a<u>": 5},
        "merges": [["<0xC3>", "<0xA4>"], ["a", "<u>"]], "byte_fallback": true, "unk_token": "<u>"})");
    EXPECT_EQ(encoded(model, "\u00E4a\u00E5"), (ids{4, 5}));
}

TEST(byte_pair_model, prefix_and_suffix) {
    json const model = json_of(R"({"vocab": {"a": 0, "##b": 1, "##c</w>": 2, "ab": 3, "abc</w>": 4, "a</w>": 5},
        "merges": [["a", "##b"], ["ab", "##c</w>"]],
        "continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"})");
    EXPECT_EQ(encoded(model, "abc"), ids{4});
    EXPECT_EQ(encoded(model, "abbc"), (ids{3, 1, 2}));
    EXPECT_EQ(encoded(model, "a"), ids{5});
}

TEST(byte_pair_model, long_pieces_take_no_quadratic_time) {
    json const model = json_of(R"({"vocab": {"a": 0, "aa": 1, "aaaa": 2}, "merges": ["a a", "aa aa"]})");
    EXPECT_EQ(encoded(model, std::string(400000, 'a')), ids(100000, 2));
}

TEST(byte_pair_model, refuses_what_is_wrong) {
    auto const problem = [](char const* field, char const* value) {
        json model = json_of(R"({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []})");
        model[field] = json_of(value);
        return failure_message([&] { encoded(model, "a"); });
    };
    EXPECT_EQ(problem("merges", R"([["a", "b"]])"),
              "model, field 'merges': entry 0 is about 'ab', which is not in the vocabulary");
    EXPECT_TRUE(contains(problem("merges", R"(["a c"])"), "about 'c'"));
    EXPECT_TRUE(contains(problem("merges", R"(["ab"])"), "has 'ab', not two tokens"));
    EXPECT_TRUE(contains(problem("merges", R"([["a"]])"), "not a pair"));
    EXPECT_TRUE(contains(problem("merges", "3"), "is not an array"));
    EXPECT_TRUE(contains(problem("merges", "null"), "is missing"));
    EXPECT_TRUE(contains(problem("dropout", "0.1"), "field 'dropout': is 0.1"));
    EXPECT_TRUE(contains(problem("byte_fallback", "1"), "is not true or false"));
    EXPECT_TRUE(contains(problem("vocab", "[]"), "is not an object of ids"));
    EXPECT_TRUE(contains(problem("vocab", R"({"a": -1})"), "id of 'a': is -1; expected"));
    EXPECT_TRUE(contains(problem("vocab", R"({"a": 4294967296})"), "is 4294967296; expected"));
    EXPECT_TRUE(contains(problem("vocab", R"({"a": 1.5})"), "is 1.5; expected"));
    EXPECT_TRUE(contains(problem("vocab", R"({"a": 1, "b": 1})"), "gives 'a' and 'b' the same id 1"));
    EXPECT_TRUE(contains(problem("type", R"("Magic")"), "is of type 'Magic', which detent does not read"));
    EXPECT_EQ(encoded(json_of(R"({"vocab": {"a": 2147483647}, "merges": []})"), "a"),
              ids{std::numeric_limits<std::int32_t>::max()});
}

} // namespace
