// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/text/pattern.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

std::vector<std::string> matches(std::string const& expression, std::string const& text,
                                 pattern_syntax syntax = pattern_syntax::oniguruma) {
    pattern const p(expression, syntax, "pattern");
    std::vector<std::string> result;
    for (pattern_matches m(p, text); m.next();) {
        result.push_back(text.substr(m.begin(), m.end() - m.begin()));
    }
    return result;
}

using list = std::vector<std::string>;

TEST(pattern, reads_what_oniguruma_means) {
    NEEDS_UNICODE();
    EXPECT_EQ(matches("\\s+", "a \u3000\u0085b\u180Ec"), list{" \u3000\u0085"}); // U+180E is no white space
    EXPECT_EQ(matches("[^\\s]+", " a\u180Eb "), list{"a\u180Eb"});
    EXPECT_EQ(matches("\\S", "\u00A0x"), list{"x"});
    EXPECT_EQ(matches("\\w+", "e\u0301_\u203F\u0661-a\u00BD"), (list{"e\u0301_\u203F\u0661", "a\u00BD"}));
    EXPECT_EQ(matches("[\\w]+", "a\u00BD"), list{"a"}); // a table for Latin-1 is used outside of classes only
    EXPECT_EQ(matches("\\W", "a-\u0301"), list{"-"});
    EXPECT_EQ(matches("\\h\\H", "ag0z"), (list{"ag", "0z"}));
    EXPECT_EQ(matches("[\\h]+", "cafe!"), list{"cafe"});
    EXPECT_EQ(matches("\\v", "\x0B\n"), list{"\x0B"});
    EXPECT_EQ(matches("\\u00e4", "\u00E4"), list{"\u00E4"});
    EXPECT_EQ(matches("\\bx\u0301?\\b", "x x\u0301 xx"), (list{"x", "x\u0301"}));
    EXPECT_EQ(matches("a\\Bb", "ab"), list{"ab"});
    EXPECT_EQ(matches("^.", "ab\ncd"), (list{"a", "c"})); // of every line
    EXPECT_EQ(matches("(?m:a.b)", "a\nb"), list{"a\nb"});
    EXPECT_EQ(matches("(?i:'s)", "'S '\u017F"), (list{"'S", "'\u017F"}));
    EXPECT_EQ(matches("a{,2}b", "aaab"), list{"aab"});
    EXPECT_EQ(matches("a{b", "a{b"), list{"a{b"});
    EXPECT_EQ(matches("\\p{Lu}[\\p{Ll}\\p{M}]+", "\u00C4hre"), list{"\u00C4hre"});
    EXPECT_EQ(matches("[]a]+", "a]b"), list{"a]"});
    EXPECT_EQ(matches("\\d+", "12\u0663"), list{"12\u0663"});
}

TEST(pattern, words_of_gpt2) {
    NEEDS_UNICODE();
    EXPECT_EQ(matches("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
                      "I'm  here,\n  12!"),
              (list{"I", "'m", " ", " here", ",", "\n ", " 12", "!"}));
}

TEST(pattern, empty_matches) {
    NEEDS_UNICODE();
    // As Oniguruma's find_iter: none where a match ended.
    EXPECT_EQ(matches("x*", "axx\u00E4"), (list{"", "xx", ""}));
    EXPECT_EQ(matches("", "ab"), (list{"", "", ""}));
    EXPECT_EQ(matches("x*", ""), list{""});
}

TEST(pattern, literal_text_is_no_expression) {
    NEEDS_UNICODE();
    EXPECT_EQ(matches("a.b", "axb a.b", pattern_syntax::literal), list{"a.b"});
    EXPECT_EQ(matches("(", "()", pattern_syntax::literal), list{"("});
    EXPECT_EQ(replaced("a b c", pattern(" ", pattern_syntax::literal, "p"), "__"), "a__b__c");
    EXPECT_EQ(replaced("aab", pattern("a+", pattern_syntax::oniguruma, "p"), ""), "b");
}

TEST(pattern, refuses_by_name) {
    NEEDS_UNICODE();
    auto const problem = [](std::string const& expression) {
        return failure_message([&] { matches(expression, "x"); });
    };
    EXPECT_EQ(problem("[a[b]]"),
              "pattern: has a regular expression with a class in a class, which detent does not read");
    EXPECT_TRUE(contains(problem("[[:alpha:]]"), "a POSIX bracket"));
    EXPECT_TRUE(contains(problem("[a&&b]"), "&& in a class"));
    EXPECT_TRUE(contains(problem("[\\W]"), "\\W in a class"));
    EXPECT_TRUE(contains(problem("\\K"), "\\K"));
    EXPECT_TRUE(contains(problem("(?~a)"), "(?~"));
    EXPECT_TRUE(contains(problem("(*UCP)a"), "(*"));
    EXPECT_TRUE(contains(problem("a{2}+"), "{n}+"));
    EXPECT_TRUE(contains(problem("a("), "pattern: 'a(' is not a regular expression: "));
    EXPECT_TRUE(contains(problem("a\\"), "ends too early"));
    EXPECT_TRUE(contains(problem("[a"), "ends too early"));
    EXPECT_TRUE(contains(problem("\\p{Nonsense}"), "is not a regular expression"));
    EXPECT_TRUE(contains(problem(std::string(70000, 'a')), "70000 bytes, more than 65536"));
}

TEST(pattern, a_search_without_end_is_an_error) {
    NEEDS_UNICODE();
    auto const problem = failure_message([] { matches("(?:a|a)*b(?!c)|(a*)*d", std::string(40, 'a') + "e"); });
    EXPECT_TRUE(contains(problem, "pattern: its regular expression fails on a text: match limit exceeded")) << problem;
}

TEST(pattern, long_texts_do_not_need_the_stack_of_machine_code) {
    NEEDS_UNICODE();
    EXPECT_EQ(matches("(?:a|b)*c", std::string(200000, 'a') + "c").size(), 1U);
}

} // namespace
