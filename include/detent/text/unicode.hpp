// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "detent/core/abi.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

// What Unicode says of characters and text, from utf8proc. Without the macro DETENT_UNICODE, which CMake defines where
// it finds utf8proc and PCRE2, each function throws an `error` that says so. Text is valid UTF-8.

/// The normalization forms of Unicode (UAX #15).
enum class normal_form { nfc, nfd, nfkc, nfkd };

/// The text in a normalization form.
std::string normalized(std::string_view text, normal_form form);

/// The character in lower case, appended to `text`: its full mapping, which is two characters for U+0130.
void append_lowercase(std::string& text, char32_t c);

/// Whether the general category is a mark: Mn, Mc or Me.
bool is_mark(char32_t c);

/// Whether the general category is Mn.
bool is_nonspacing_mark(char32_t c);

/// Whether the general category is a number: Nd, Nl or No.
bool is_number(char32_t c);

/// Whether the general category is one of punctuation, or the character one of ASCII that are no letter, digit, space
/// or control: what BERT splits at.
bool is_punctuation(char32_t c);

/// Whether the general category is control, format or private use.
bool is_control(char32_t c);

/// The bytes of the first grapheme cluster (UAX #29) of `text`, which is not empty.
std::size_t first_grapheme(std::string_view text);

/// Whether the character has the property White_Space.
constexpr bool is_white_space(char32_t c) {
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// The place of the last character of a text that is not empty.
constexpr std::size_t last_character(std::string_view text) {
    std::size_t i = text.size() - 1;
    while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0U) == 0x80U) {
        --i;
    }
    return i;
}

/// The text without the white space at its left or right end.
constexpr std::string_view without_white_space(std::string_view text, bool left, bool right) {
    while (left && !text.empty()) {
        std::string_view rest = text;
        if (!is_white_space(take_character(rest))) {
            break;
        }
        text = rest;
    }
    while (right && !text.empty()) {
        std::string_view last = text.substr(last_character(text));
        std::size_t const size = last.size();
        if (!is_white_space(take_character(last))) {
            break;
        }
        text.remove_suffix(size);
    }
    return text;
}

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/unicode.ipp" // IWYU pragma: export
#endif
