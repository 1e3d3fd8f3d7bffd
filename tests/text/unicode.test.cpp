// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>

#include <gtest/gtest.h>

#include "detent/text/unicode.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;

TEST(unicode, normal_forms) {
    NEEDS_UNICODE();
    EXPECT_EQ(normalized("e\u0301a", normal_form::nfc), "\u00E9a");
    EXPECT_EQ(normalized("\u00E9", normal_form::nfd), "e\u0301");
    EXPECT_EQ(normalized("\uFB01\u2460\u00BD", normal_form::nfkc), "fi11\u20442");
    EXPECT_EQ(normalized("\uFB01\u00E9", normal_form::nfkd), "fie\u0301");
    EXPECT_EQ(normalized("\u1100\u1161\u11A8", normal_form::nfc), "\uAC01");
    EXPECT_EQ(normalized("a\u0315\u0300", normal_form::nfc), "\u00E0\u0315"); // marks are put in order
    EXPECT_EQ(normalized("plain", normal_form::nfd), "plain");
    EXPECT_EQ(normalized("", normal_form::nfkc), "");
    EXPECT_EQ(normalized("x\u0301 e\u0301 \u0301", normal_form::nfc), "x\u0301 \u00E9 \u0301");
}

TEST(unicode, runs_do_not_change_what_comes_out) {
    NEEDS_UNICODE();
    // Text between ASCII is normalized on its own: the same as with a mark, which makes one run of all, before it.
    std::string const text = "a\u0301bc\u0327\u0301 o\u0308\u0301\u00DF\u1E9B\u0323 \u2126k\u0301";
    for (auto const form : {normal_form::nfc, normal_form::nfd, normal_form::nfkc, normal_form::nfkd}) {
        std::string joined;
        for (std::size_t i = 0; i < text.size(); i += character_size(text[i])) {
            joined += text.substr(i, character_size(text[i]));
        }
        EXPECT_EQ(normalized(normalized(joined, form), form), normalized(text, form));
        EXPECT_EQ(normalized("\u3042" + text, form), "\u3042" + normalized(text, form));
    }
}

TEST(unicode, lower_case) {
    NEEDS_UNICODE();
    std::string text;
    for (char32_t const c : {U'A', U'\u00C4', U'\u0130', U'\u03A3', U'\u1E9E', U'z', U'\U00010400'}) {
        append_lowercase(text, c);
    }
    EXPECT_EQ(text, "a\u00E4i\u0307\u03C3\u00DFz\U00010428");
}

TEST(unicode, categories) {
    NEEDS_UNICODE();
    EXPECT_TRUE(is_mark(0x301) && is_mark(0x903) && is_mark(0x20DD) && !is_mark('a'));
    EXPECT_TRUE(is_nonspacing_mark(0x301) && !is_nonspacing_mark(0x903));
    EXPECT_TRUE(is_number('7') && is_number(0xBD) && is_number(0x2167) && !is_number('a'));
    EXPECT_TRUE(is_punctuation('!') && is_punctuation('$') && is_punctuation(0x3002) && is_punctuation('_'));
    EXPECT_FALSE(is_punctuation('a') || is_punctuation(' ') || is_punctuation(0x20AC) || is_punctuation(0x7F));
    EXPECT_TRUE(is_control(0) && is_control(0x200D) && is_control(0xE000) && !is_control('a') && !is_control(' '));
    EXPECT_TRUE(is_white_space(0x85) && is_white_space(0x3000) && !is_white_space(0x200B) && !is_white_space(0x180E));
}

TEST(unicode, white_space_is_taken_off) {
    EXPECT_EQ(without_white_space(" \u3000a b\t\n", true, true), "a b");
    EXPECT_EQ(without_white_space(" a ", true, false), "a ");
    EXPECT_EQ(without_white_space(" \u00E4 ", false, true), " \u00E4");
    EXPECT_EQ(without_white_space(" \u3000", true, true), "");
    EXPECT_EQ(without_white_space("", true, true), "");
}

TEST(unicode, graphemes) {
    NEEDS_UNICODE();
    EXPECT_EQ(first_grapheme("ab"), 1U);
    EXPECT_EQ(first_grapheme("e\u0301x"), 3U);
    EXPECT_EQ(first_grapheme("\r\n"), 2U);
    EXPECT_EQ(first_grapheme("\U0001F468\u200D\U0001F469 "), 11U);
}

} // namespace
