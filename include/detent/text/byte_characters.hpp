// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "detent/core/abi.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

/// The characters that stand for bytes in vocabularies at the level of bytes, as GPT-2 has them: a byte that is printed
/// in Latin-1 is its own, the others are U+0100, U+0101 and so on in order.
constexpr std::array<char32_t, 256> byte_characters() {
    std::array<char32_t, 256> result{};
    char32_t next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        bool const printed = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
        result[byte] = printed ? static_cast<char32_t>(byte) : next++;
    }
    return result;
}

/// Appends the character that stands for a byte.
inline void append_byte_character(std::string& text, char byte) {
    static constexpr auto table = byte_characters();
    append_utf8(text, table[static_cast<unsigned char>(byte)]);
}

/// The characters that stand for the bytes of a text.
inline std::string characters_of_bytes(std::string_view bytes) {
    std::string result;
    for (char const byte : bytes) {
        append_byte_character(result, byte);
    }
    return result;
}

/// The bytes that the characters of valid UTF-8 stand for; where one of them stands for none, the text itself.
inline std::string bytes_of_characters(std::string_view text) {
    static constexpr auto bytes = [] {
        std::array<int, 0x144> result{};
        result.fill(-1);
        auto const table = byte_characters();
        for (std::size_t byte = 0; byte < table.size(); ++byte) {
            result[table[byte]] = static_cast<int>(byte);
        }
        return result;
    }();
    std::string result;
    for (std::string_view rest = text; !rest.empty();) {
        char32_t const c = take_character(rest);
        if (c >= bytes.size() || bytes[c] < 0) {
            return std::string(text);
        }
        result += static_cast<char>(bytes[c]);
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::text
