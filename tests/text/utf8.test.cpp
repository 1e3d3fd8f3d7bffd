// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "detent/text/utf8.hpp"

namespace {

using namespace detent::text;
using namespace std::string_literals;

TEST(utf8, every_character_comes_back) {
    for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 || c > 0x10F000 ? 1 : 7) {
        if (c >= 0xD800 && c <= 0xDFFF) {
            continue;
        }
        std::string text;
        append_utf8(text, c);
        std::string_view rest = text;
        bool const cut_off = text.size() == 1 || !is_utf8(std::string_view(text).substr(0, text.size() - 1));
        ASSERT_TRUE(character_size(text[0]) == text.size() && is_utf8(text) && cut_off && take_character(rest) == c &&
                    rest.empty())
            << static_cast<unsigned>(c);
    }
}

// Whether all bytes are the encodings of characters, by encoding every character that their bits could stand for.
bool is_utf8_by_encoding(std::string_view text) {
    while (!text.empty()) {
        bool found = false;
        for (std::size_t size = 1; size <= 4 && size <= text.size() && !found; ++size) {
            auto const head = text.substr(0, size);
            char32_t c = static_cast<unsigned char>(head[0]) & (size == 1 ? 0xFFU : 0x7FU >> size);
            for (std::size_t i = 1; i < size; ++i) {
                c = (c << 6) | (static_cast<unsigned char>(head[i]) & 0x3FU);
            }
            std::string again;
            append_utf8(again, c);
            found = again == head && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
            text.remove_prefix(found ? size : 0);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

TEST(utf8, finds_what_is_wrong) {
    for (unsigned first = 0; first < 256; ++first) {
        for (unsigned const second : {0x0U, 0x41U, 0x7FU, 0x80U, 0x8FU, 0x90U, 0x9FU, 0xA0U, 0xBFU, 0xC0U, 0xFFU}) {
            for (std::string const& tail : {""s, "\x80"s, "\xBF"s, "a"s, "\x80\x80"s, "\x80z"s}) {
                std::string const text = std::string{static_cast<char>(first), static_cast<char>(second)} + tail;
                ASSERT_EQ(is_utf8(text), is_utf8_by_encoding(text)) << first << ' ' << second << ' ' << tail.size();
                ASSERT_TRUE(is_utf8(valid_utf8(text)));
                ASSERT_EQ(valid_utf8(text) == text, is_utf8(text));
            }
        }
    }
}

TEST(utf8, replaces_each_wrong_sequence_once) {
    // The example of the Unicode standard, table 3-8, and one of an incomplete character.
    EXPECT_EQ(valid_utf8("a\xF1\x80\x80\xE1\x80\xC2"
                         "b\x80"
                         "c\x80\xBF"
                         "d"),
              "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
    EXPECT_EQ(valid_utf8("\xF0\x9F\x98"), "\uFFFD");
    EXPECT_EQ(valid_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD"); // a surrogate
    EXPECT_EQ(valid_utf8("\xC0\xAF"), "\uFFFD\uFFFD");
    EXPECT_EQ(valid_utf8("a\0b"s), "a\0b"s);
}

} // namespace
