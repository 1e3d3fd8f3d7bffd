// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/io/text_file.hpp"
#include "detent/io/tokens.hpp"
#include "detent/text/byte_characters.hpp"
#include "detent/text/load_tokenizer.hpp"
#include "detent/text/tokenizer.hpp"
#include "detent/text/utf8.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using nlohmann::json;

/// Byte-level BPE as of GPT-2: the 256 bytes by their value, some merges, and two special tokens.
json byte_level_json() {
    json result = json_of(R"({"version": "1.0", "truncation": {"max_length": 2}, "padding": null, "added_tokens": [
        {"id": 300, "content": "<|end|>", "special": true, "normalized": false},
        {"id": 301, "content": "<think>", "special": false, "normalized": false}],
        "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "post_processor": {"type": "BertProcessing", "cls": ["<|end|>", 300], "sep": ["<think>", 301]},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "merges": ["t h", "th e", "\u0120 the", "\u00c3 \u00a9"], "vocab": {
            "th": 256, "the": 257, "\u0120the": 258, "\u00c3\u00a9": 259}}})");
    for (int byte = 0; byte < 256; ++byte) {
        result["model"]["vocab"][characters_of_bytes(std::string(1, static_cast<char>(byte)))] = byte;
    }
    return result;
}

TEST(tokenizer, from_text_to_ids_and_back) {
    NEEDS_UNICODE();
    auto const t = tokenizer_of(byte_level_json());
    EXPECT_EQ(t.encode("the the e\u0301", false), (ids{257, 258, ' ', 259}));
    EXPECT_EQ(t.encode("the", true), (ids{300, 257, 301})); // and no truncation
    EXPECT_EQ(t.encode("", true), (ids{300, 301}));
    EXPECT_EQ(t.encode("<think>the<|end|>", false), (ids{301, 257, 300}));
    EXPECT_EQ(t.decode(ids{257, 258, ' ', 259, 300}), "the the \u00E9<|end|>");
    EXPECT_EQ(t.decode(ids{301, 257, 300}, true), "<think>the");
    EXPECT_EQ(t.decode(ids{-1, 257, 9999, 0xC3}), "the\uFFFD"); // ids without tokens have no text
    EXPECT_EQ(t.id("\u0120the"), 258);
    EXPECT_EQ(t.id("<|end|>"), 300);
    EXPECT_EQ(t.id("nothing"), std::nullopt);
    EXPECT_EQ(t.token(258), "\u0120the");
    EXPECT_EQ(t.token(300), "<|end|>");
    EXPECT_EQ(t.token(302), std::nullopt);
    EXPECT_EQ(t.largest_id(), 301);
}

TEST(tokenizer, ids_around_a_text_may_be_the_largest) {
    NEEDS_UNICODE();
    auto other = byte_level_json();
    other["post_processor"]["sep"] = {"<other>", 305};
    auto const t = tokenizer_of(other);
    EXPECT_EQ(t.encode("the", true), (ids{300, 257, 305}));
    EXPECT_EQ(t.largest_id(), 305);
}

TEST(tokenizer, bytes_that_are_no_text_are_read_as_one_character) {
    NEEDS_UNICODE();
    auto const t = tokenizer_of(byte_level_json());
    EXPECT_EQ(t.encode("a\xFF\xC3", false), t.encode("a\uFFFD\uFFFD", false));
    EXPECT_EQ(t.encode("a\xFF\xC3", false), (ids{'a', 0xEF, 0xBF, 0xBD, 0xEF, 0xBF, 0xBD}));
}

TEST(tokenizer, may_be_used_by_several_threads) {
    NEEDS_UNICODE();
    auto const t = tokenizer_of(byte_level_json());
    std::string text;
    for (int i = 0; i < 5000; ++i) {
        text += " the w" + std::to_string(i % 700);
    }
    auto const wanted = tokenizer_of(byte_level_json()).encode(text, true);
    std::vector<ids> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results) {
        threads.emplace_back([&] { result = t.encode(text, true); });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    for (auto const& result : results) {
        EXPECT_EQ(result, wanted);
    }
}

TEST(tokenizer, parts_that_are_missing_do_nothing) {
    auto const t = tokenizer_of(json_of(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})"));
    EXPECT_EQ(t.encode("ab", true), (ids{0, 1}));
    EXPECT_EQ(t.decode(ids{0, 1}), "a b");
}

TEST(tokenizer, parts_that_are_wrong_are_named) {
    auto const problem = [](char const* field, json const& value) {
        json changed = byte_level_json();
        changed[field] = value;
        return failure_message([&] { tokenizer_of(changed); });
    };
    EXPECT_EQ(problem("model", nullptr), "tokenizer.json, field 'model': is missing");
    EXPECT_EQ(problem("model", 3), "tokenizer.json, model: is not a JSON object");
    EXPECT_TRUE(contains(problem("normalizer", {{"type", "X"}}), "tokenizer.json, normalizer: is of type 'X'"));
    EXPECT_TRUE(contains(problem("added_tokens", "x"), "field 'added_tokens': is not an array"));
    EXPECT_NE(problem("model", {{"type", "BPE"}, {"vocab", json::object()}, {"merges", json::array()}}), "?");
}

std::string streamed(tokenizer const& t, ids const& list, std::size_t* longest_wait = nullptr) {
    text_stream stream(t);
    std::string result;
    std::size_t waits = 0;
    for (auto const id : list) {
        std::string const news = stream.push(id);
        EXPECT_TRUE(is_utf8(news));
        waits = news.empty() ? waits + 1 : 0;
        if (longest_wait != nullptr) {
            *longest_wait = std::max(*longest_wait, waits);
        }
        result += news;
    }
    return result + stream.finish();
}

TEST(text_stream, holds_back_parts_of_characters) {
    NEEDS_UNICODE();
    auto const t = tokenizer_of(byte_level_json());
    text_stream stream(t);
    EXPECT_EQ(stream.push('a'), "a");
    EXPECT_EQ(stream.push(0xC3), "");
    EXPECT_EQ(stream.push(0xA9), "\u00E9");
    EXPECT_EQ(stream.push(300), ""); // special
    EXPECT_EQ(stream.push(0xF0), "");
    EXPECT_EQ(stream.push(0x9F), "");
    EXPECT_EQ(stream.finish(), "\uFFFD");
    EXPECT_EQ(stream.push('b'), "b");
}

TEST(text_stream, joined_is_the_text_of_all) {
    NEEDS_UNICODE();
    auto const t = tokenizer_of(byte_level_json());
    std::string const text = "the \u00E9\U0001F468\u200D\U0001F469 \uFFFD\uFFFD\uFFFD\uFFFD\U0001F44D\uFFFD the\n";
    auto const list = t.encode(text, true);
    std::size_t longest_wait = 0;
    EXPECT_EQ(streamed(t, list, &longest_wait), t.decode(list, true));
    EXPECT_LT(longest_wait, 16U);
    EXPECT_EQ(streamed(t, ids(200, 0xFF)).substr(0, 3), "\uFFFD"); // what is never a character does come out
    EXPECT_EQ(streamed(t, ids(200, 300)), "");
}

TEST(text_stream, of_tokens_that_look_otherwise_as_the_first) {
    auto const t = tokenizer_of(json_of(R"({"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1, "##b": 2, ".": 3}}})"));
    EXPECT_EQ(streamed(t, {1, 2, 1, 3, 1, 2}), "ab a. ab");
    ids const nothing(200, 99); // ids without a token
    ids all{1};
    all.insert(all.end(), nothing.begin(), nothing.end());
    all.push_back(1);
    EXPECT_EQ(streamed(t, all), "a a");
}

TEST(tokenizer, cases_of_novella) {
    NEEDS_UNICODE();
    auto const directory = shared("models/novella-30m");
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << directory << " is missing";
    }
    auto const t = load_tokenizer(directory);
    auto const cases = detent::io::read_json(directory / "tokenizer_cases.json");
    ASSERT_EQ(cases.size(), 300U);
    for (auto const& one : cases) {
        auto const text = one["text"].get<std::string>();
        ids const wanted = one["ids"];
        EXPECT_EQ(t.encode(text, true), wanted) << text;
        EXPECT_EQ(t.decode(wanted), one["decoded"]) << text;
    }
    for (std::string const name : {"evaluation", "calibration"}) {
        auto const text = detent::io::read_text(directory / (name + ".txt"));
        auto const wanted = detent::io::read_tokens(directory / (name + ".tokens.u16"));
        EXPECT_TRUE(t.encode(text, true) == wanted) << name;
        EXPECT_TRUE(t.decode(wanted) == text) << name;
    }
}

} // namespace
