// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "detent/text/added_tokens.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

/// Text by its id or as it is.
std::vector<std::string> cut(std::vector<added_token> list, std::string const& text, bool is_normalized = false,
                             std::string const& normalizer_json = "") {
    auto const model_json = json_of(R"({"type": "BPE", "vocab": {"a": 0}, "merges": []})");
    auto const model = read_token_model(part(model_json, "model"));
    auto const parsed = json_of(normalizer_json.empty() ? "{}" : normalizer_json);
    normalizer const normalize = normalizer_json.empty() ? normalizer() : normalizer(part(parsed, "normalizer"));
    std::vector<std::string> result;
    for (auto const& s : added_tokens(std::move(list), *model, normalize, "file").split(text, is_normalized)) {
        result.push_back(s.id ? std::to_string(*s.id) : std::string(s.text));
    }
    return result;
}

using list = std::vector<std::string>;

added_token token(std::int32_t id, std::string content) { return {id, std::move(content), false, false, false, false}; }

TEST(added_tokens, are_found_where_they_begin_and_the_longest_is_taken) {
    EXPECT_EQ(cut({token(5, "<s>"), token(6, "<s>>")}, "x<s><s>>y<"), (list{"x", "5", "6", "y<"}));
    EXPECT_EQ(cut({token(5, "aa")}, "aaa"), (list{"5", "a"}));
    EXPECT_EQ(cut({}, "aaa"), list{"aaa"});
    EXPECT_EQ(cut({token(5, "<s>")}, "<s>"), list{"5"});
    EXPECT_TRUE(cut({token(5, "<s>")}, "").empty());
}

TEST(added_tokens, take_spaces_with_them) {
    auto left = token(5, "<m>");
    left.lstrip = true;
    auto right = token(6, "<r>");
    right.rstrip = true;
    EXPECT_EQ(cut({left, right}, "a \u3000<m> b <r> c"), (list{"a", "5", " b ", "6", "c"}));
    EXPECT_EQ(cut({left, right}, "<r>  <m>"), (list{"6", "5"}));
    EXPECT_EQ(cut({left, right}, "  <m>"), list{"5"});
}

TEST(added_tokens, single_words) {
    NEEDS_UNICODE();
    auto word = token(5, "cat");
    word.single_word = true;
    EXPECT_EQ(cut({word}, "cat cats a-cat! \u00E4cat cat\u0301"),
              (list{"5", " cats a-", "5", "! \u00E4cat cat\u0301"}));
}

TEST(added_tokens, in_normalized_text) {
    NEEDS_UNICODE();
    added_token const day{5, "Day"};
    std::string const lower = R"({"type": "Lowercase"})";
    EXPECT_EQ(cut({day}, "a Day", false, lower), list{"a Day"});
    EXPECT_EQ(cut({day}, "a day", true, lower), (list{"a ", "5"}));
}

TEST(added_tokens, agree_with_the_vocabulary) {
    auto const problem = [](std::vector<added_token> tokens) {
        return failure_message([&] { cut(std::move(tokens), "x"); });
    };
    EXPECT_EQ(problem({token(0, "a")}), "");
    EXPECT_EQ(problem({token(3, "b"), token(3, "b")}), "");
    EXPECT_EQ(problem({token(1, "a")}), "file, added token 'a': has id 1, but the vocabulary says otherwise");
    EXPECT_TRUE(contains(problem({token(0, "b")}), "has id 0, but the vocabulary says otherwise"));
    EXPECT_TRUE(contains(problem({token(3, "b"), token(3, "c")}), "gives 'b' and 'c' the same id 3"));
    EXPECT_TRUE(contains(problem({token(3, "b"), token(4, "b")}), "is there twice"));
}

TEST(added_tokens, are_read_with_their_options) {
    auto const json = json_of(R"({"added_tokens": [{"id": 3, "content": "x", "special": true, "lstrip": true},
                                                  {"id": 4, "content": "y"}]})");
    auto const read = read_added_tokens(part(json, "file"));
    ASSERT_EQ(read.size(), 2U);
    EXPECT_EQ(read[0], (added_token{3, "x", false, true, false, false, true}));
    EXPECT_EQ(read[1], (added_token{4, "y", false, false, false, true, false}));
    auto const bad = json_of(R"({"added_tokens": [{"id": 99999999999, "content": "x"}]})");
    EXPECT_EQ(failure_message([&] { read_added_tokens(part(bad, "file")); }),
              "file, added_tokens[0], field 'id': is 99999999999; expected an integer from 0 to 2147483647");
}

} // namespace
