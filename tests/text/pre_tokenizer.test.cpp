// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstddef>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/pre_tokenizer.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using list = std::vector<std::string>;

list pieces_of(std::string const& json, std::string const& text, bool at_start = true) {
    auto const parsed = json_of(json);
    auto const cut = pre_tokenizer(part(parsed, "pre_tokenizer"))(text, at_start);
    list result;
    for (std::size_t i = 0; i < cut.list.size(); ++i) {
        result.emplace_back(cut[i]);
    }
    return result;
}

std::string split_json(std::string const& behavior, bool invert = false) {
    return R"({"type": "Split", "pattern": {"Regex": "-"}, "behavior": ")" + behavior + R"(", "invert": )" +
           (invert ? "true}" : "false}");
}

TEST(pre_tokenizer, behaviors) {
    NEEDS_UNICODE();
    // The example of the documentation of `tokenizers`.
    std::string const text = "the-final--countdown";
    EXPECT_EQ(pieces_of(split_json("Removed"), text), (list{"the", "final", "countdown"}));
    EXPECT_EQ(pieces_of(split_json("Isolated"), text), (list{"the", "-", "final", "-", "-", "countdown"}));
    EXPECT_EQ(pieces_of(split_json("MergedWithPrevious"), text), (list{"the-", "final-", "-", "countdown"}));
    EXPECT_EQ(pieces_of(split_json("MergedWithNext"), text), (list{"the", "-final", "-", "-countdown"}));
    EXPECT_EQ(pieces_of(split_json("Contiguous"), text), (list{"the", "-", "final", "--", "countdown"}));
    EXPECT_EQ(pieces_of(split_json("Removed", true), text), (list{"-", "-", "-"}));
    EXPECT_EQ(
        pieces_of(R"({"type": "Split", "pattern": {"String": "."}, "behavior": "Removed", "invert": false})", "a.b"),
        (list{"a", "b"}));
}

TEST(pre_tokenizer, types) {
    NEEDS_UNICODE();
    EXPECT_EQ(pieces_of(R"({"type": "Whitespace"})", "Hi, you\u0301_2 !?"), (list{"Hi", ",", "you\u0301_2", "!?"}));
    EXPECT_EQ(pieces_of(R"({"type": "WhitespaceSplit"})", " a,b \u3000c"), (list{"a,b", "c"}));
    EXPECT_EQ(pieces_of(R"({"type": "BertPreTokenizer"})", "it's \u4E2D\u3002"),
              (list{"it", "'", "s", "\u4E2D", "\u3002"}));
    EXPECT_EQ(pieces_of(R"({"type": "Punctuation"})", "a?!b"), (list{"a", "?", "!", "b"}));
    EXPECT_EQ(pieces_of(R"({"type": "Punctuation", "behavior": "Contiguous"})", "a?!b"), (list{"a", "?!", "b"}));
    EXPECT_EQ(pieces_of(R"({"type": "Digits", "individual_digits": true})", "a12"), (list{"a", "1", "2"}));
    EXPECT_EQ(pieces_of(R"({"type": "Digits", "individual_digits": false})", "a1\u00BDb"), (list{"a", "1\u00BD", "b"}));
    EXPECT_EQ(pieces_of(R"({"type": "CharDelimiterSplit", "delimiter": "\u00e4"})", "a\u00E4b"), (list{"a", "b"}));
    EXPECT_TRUE(pieces_of(R"({"type": "WhitespaceSplit"})", "  ").empty());
    EXPECT_TRUE(pieces_of(R"({"type": "Whitespace"})", "").empty());
}

TEST(pre_tokenizer, metaspace) {
    std::string const always = R"({"type": "Metaspace", "replacement": "_"})";
    std::string const first = R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})";
    std::string const never = R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})";
    EXPECT_EQ(pieces_of(always, "a  b"), (list{"_a", "_", "_b"}));
    EXPECT_EQ(pieces_of(always, " a"), list{"_a"});
    EXPECT_EQ(pieces_of(first, "a b"), (list{"_a", "_b"}));
    EXPECT_EQ(pieces_of(first, "a b", false), (list{"a", "_b"}));
    EXPECT_EQ(pieces_of(never, "a b"), (list{"a", "_b"}));
    EXPECT_EQ(pieces_of(R"({"type": "Metaspace", "replacement": "\u2581", "split": false})", "a b"),
              list{"\u2581a\u2581b"});
}

TEST(pre_tokenizer, metaspace_behind_other_cuts) {
    NEEDS_UNICODE();
    std::string const json = R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}]})";
    EXPECT_EQ(pieces_of(json, "a b"), (list{"_a", "b"}));
    EXPECT_EQ(pieces_of(json, " a b"), (list{"a", "b"})); // the first piece is not where the text begins
}

TEST(pre_tokenizer, byte_level) {
    NEEDS_UNICODE();
    auto const json = json_of(R"({"type": "ByteLevel", "add_prefix_space": true})");
    pre_tokenizer const cut(part(json, "pre_tokenizer"));
    EXPECT_TRUE(cut.gives_bytes());
    EXPECT_EQ(pieces_of(json.dump(), "a\u00E9 b"), (list{" a\u00E9", " b"}));
    // Another one behind it sees the characters that stand for bytes.
    EXPECT_EQ(pieces_of(R"({"type": "Sequence", "pretokenizers": [
                  {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}, {"type": "Digits"}]})",
                        "\u00E9 1"),
              (list{"\u00C3\u00A9\u0120", "1"}));
}

TEST(pre_tokenizer, refuses_what_it_does_not_know) {
    using nlohmann::json;
    EXPECT_TRUE(contains(problem_of<pre_tokenizer>({{"type", "UnicodeScripts"}}), "type 'UnicodeScripts'"));
    EXPECT_TRUE(
        contains(problem_of<pre_tokenizer>({{"type", "Metaspace"}, {"replacement", "ab"}}), "not one character"));
    EXPECT_TRUE(
        contains(problem_of<pre_tokenizer>({{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "often"}}),
                 "often"));
#if defined(DETENT_UNICODE)
    auto split = json_of(split_json("Sometimes"));
    EXPECT_TRUE(contains(problem_of<pre_tokenizer>(split), "is 'Sometimes', which detent does not know"));
    split["behavior"] = "Isolated";
    split["pattern"] = {{"Regex", "("}};
    EXPECT_TRUE(contains(problem_of<pre_tokenizer>(split), "is not a regular expression"));
#endif
}

} // namespace
