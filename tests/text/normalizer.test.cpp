// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/normalizer.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using namespace std::string_literals;

std::string normalized_by(std::string const& json, std::string const& text) {
    auto const parsed = json_of(json);
    return normalizer(part(parsed, "normalizer"))(text);
}

TEST(normalizer, types) {
    NEEDS_UNICODE();
    EXPECT_EQ(normalized_by(R"({"type": "NFC"})", "e\u0301"), "\u00E9");
    EXPECT_EQ(normalized_by(R"({"type": "NFD"})", "\u00E9"), "e\u0301");
    EXPECT_EQ(normalized_by(R"({"type": "NFKC"})", "\uFB01"), "fi");
    EXPECT_EQ(normalized_by(R"({"type": "NFKD"})", "\u1E9B\u0323"), "s\u0323\u0307");
    EXPECT_EQ(normalized_by(R"({"type": "Lowercase"})", "A\u00C4\u0130"), "a\u00E4i\u0307");
    EXPECT_EQ(normalized_by(R"({"type": "StripAccents"})", "e\u0301\u0903x"), "ex");
    EXPECT_EQ(normalized_by(R"({"type": "Prepend", "prepend": "\u2581"})", "a"), "\u2581a");
    EXPECT_EQ(normalized_by(R"({"type": "Prepend", "prepend": "\u2581"})", ""), "");
    EXPECT_EQ(normalized_by(R"({"type": "Strip", "strip_left": true, "strip_right": false})", " a "), "a ");
    EXPECT_EQ(normalized_by(R"({"type": "Replace", "pattern": {"String": "."}, "content": "!"})", "a.b"), "a!b");
    EXPECT_EQ(normalized_by(R"({"type": "Replace", "pattern": {"Regex": "\\s{2,}"}, "content": " "})", "a   b c"),
              "a b c");
    EXPECT_EQ(normalized_by(R"({"type": "Nmt"})", "a\tb\u200B\x01"), "a b ");
    EXPECT_EQ(normalized_by(R"({"type": "ByteLevel"})", " \u00E9"), "\u0120\u00C3\u00A9");
    EXPECT_EQ(normalized_by(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"},
                                {"type": "Lowercase"}]})",
                            "\u00C9a"),
              "ea");
    EXPECT_TRUE(normalizer().empty());
}

TEST(normalizer, of_bert) {
    NEEDS_UNICODE();
    EXPECT_EQ(normalized_by(R"({"type": "BertNormalizer"})", "H\u00E9\u4E2D\u200Bx\t\uFFFD\0y"s), "he \u4E2D x y");
    EXPECT_EQ(normalized_by(R"({"type": "BertNormalizer", "lowercase": false, "strip_accents": null})", "\u00C9"),
              "\u00C9");
    EXPECT_EQ(normalized_by(R"({"type": "BertNormalizer", "lowercase": true, "strip_accents": false})", "\u00C9"),
              "\u00E9");
    EXPECT_EQ(
        normalized_by(R"({"type": "BertNormalizer", "clean_text": false, "handle_chinese_chars": false})", "\u4E2D\t"),
        "\u4E2D\t");
}

TEST(normalizer, texts_do_not_grow_without_end) {
    NEEDS_UNICODE();
    auto const doubled = json_of(R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})");
    nlohmann::json const often{{"type", "Sequence"}, {"normalizers", std::vector<nlohmann::json>(60, doubled)}};
    EXPECT_TRUE(contains(failure_message([&] { normalized_by(often.dump(), "a"); }), "more than 64 times as long"));
    nlohmann::json once = doubled;
    once["content"] = std::string(100000, 'x');
    EXPECT_TRUE(contains(failure_message([&] { normalized_by(once.dump(), std::string(2000, 'a')); }), "64 times"));
    EXPECT_EQ(normalized_by(once.dump(), "a").size(), 100000U);
}

TEST(normalizer, refuses_what_it_does_not_know) {
    EXPECT_EQ(problem_of<normalizer>({{"type", "Magic"}}), "part: is of type 'Magic', which detent does not read");
    EXPECT_EQ(problem_of<normalizer>(nlohmann::json::object()), "part, field 'type': is missing");
    EXPECT_EQ(problem_of<normalizer>({{"type", "Sequence"}, {"normalizers", {3}}}),
              "part, normalizers[0]: is not a JSON object");
    EXPECT_EQ(problem_of<normalizer>({{"type", "Prepend"}, {"prepend", 1}}), "part, field 'prepend': is not a string");
    EXPECT_EQ(problem_of<normalizer>({{"type", "Precompiled"}, {"precompiled_charsmap", "!"}}), "part: is not base64");
    EXPECT_EQ(problem_of<normalizer>({{"type", "Precompiled"}, {"precompiled_charsmap", ""}}),
              "part: has a charsmap that is broken");
}

} // namespace
