// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// U+FFFD, the character that stands for bytes that are not UTF-8.
inline constexpr std::string_view replacement_character = "\xEF\xBF\xBD";

/// The bytes of a UTF-8 character, told by the first of them.
constexpr std::size_t character_size(char first) {
    auto const byte = static_cast<unsigned char>(first);
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// Whether all bytes are ASCII.
constexpr bool is_ascii(std::string_view text) {
    for (char const c : text) {
        if (static_cast<unsigned char>(c) >= 0x80) {
            return false;
        }
    }
    return true;
}

/// Appends a code point as UTF-8.
inline void append_utf8(std::string& text, char32_t c) {
    auto const add = [&](char32_t byte) { text.push_back(static_cast<char>(static_cast<unsigned char>(byte))); };
    if (c < 0x80) {
        add(c);
    } else if (c < 0x800) {
        add(0xC0 | (c >> 6));
        add(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        add(0xE0 | (c >> 12));
        add(0x80 | ((c >> 6) & 0x3F));
        add(0x80 | (c & 0x3F));
    } else {
        add(0xF0 | (c >> 18));
        add(0x80 | ((c >> 12) & 0x3F));
        add(0x80 | ((c >> 6) & 0x3F));
        add(0x80 | (c & 0x3F));
    }
}

/// The number of bytes at the beginning of `text` that could begin a character, and whether they are a whole one. Text
/// that is no character has the longest beginning of one, at least a byte, so that each wrong sequence is replaced
/// once, as the Unicode standard recommends (section 3.9, "U+FFFD Substitution of Maximal Subparts").
struct utf8_prefix {
    std::size_t size;
    bool whole;
};

/// Looks at the first character of `text`, which is not empty.
constexpr utf8_prefix first_character(std::string_view text) {
    auto const at = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
    unsigned const first = at(0);
    if (first < 0x80) {
        return {1, true};
    }
    if (first < 0xC2 || first > 0xF4) {
        return {1, false};
    }
    // The second byte says whether a character is too short, a surrogate or beyond U+10FFFF.
    unsigned const low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned const high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (at(1) < low || at(1) > high) {
        return {1, false};
    }
    std::size_t const size = character_size(text[0]);
    for (std::size_t i = 2; i < size; ++i) {
        if ((at(i) & 0xC0U) != 0x80U) {
            return {i, false};
        }
    }
    return {size, true};
}

/// Whether all of `text` is UTF-8.
constexpr bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        auto const [size, whole] = first_character(text);
        if (!whole) {
            return false;
        }
        text.remove_prefix(size);
    }
    return true;
}

/// The text with U+FFFD in place of every longest sequence of bytes that is not UTF-8.
inline std::string valid_utf8(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        auto const [size, whole] = first_character(text);
        result += whole ? text.substr(0, size) : replacement_character;
        text.remove_prefix(size);
    }
    return result;
}

/// Takes the first character off `text`, which is valid UTF-8 and not empty.
constexpr char32_t take_character(std::string_view& text) {
    std::size_t const size = character_size(text[0]);
    auto const first = static_cast<unsigned char>(text[0]);
    char32_t c = size == 1 ? first : first & (0x7FU >> size);
    for (std::size_t i = 1; i < size; ++i) {
        c = (c << 6) | (static_cast<unsigned char>(text[i]) & 0x3FU);
    }
    text.remove_prefix(size);
    return c;
}

/// Calls `f` with every code point of valid UTF-8.
template <class F> constexpr void for_each_character(std::string_view text, F&& f) {
    while (!text.empty()) {
        f(take_character(text));
    }
}

} // namespace detent::inline DETENT_ABI::text
