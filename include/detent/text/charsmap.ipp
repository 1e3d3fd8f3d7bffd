// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/text/charsmap.hpp"
#include "detent/text/unicode.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE std::string base64_bytes(std::string_view text, std::string const& subject) {
    constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    while (!text.empty() && text.back() == '=') {
        text.remove_suffix(1);
    }
    std::string result;
    std::uint32_t bits = 0;
    int count = 0;
    for (char const c : text) {
        auto const digit = digits.find(c);
        if (digit == std::string_view::npos) {
            throw error(subject, "is not base64");
        }
        bits = (bits << 6) | static_cast<std::uint32_t>(digit);
        count += 6;
        if (count >= 8) {
            count -= 8;
            result += static_cast<char>(static_cast<unsigned char>((bits >> count) & 0xFFU));
        }
    }
    return result;
}

// The parts of a unit of the double array, as the library Darts-clone lays them out.
struct trie_unit {
    std::uint32_t bits;

    bool is_value() const { return (bits >> 31) != 0; }
    std::uint32_t value() const { return bits & 0x7FFFFFFFU; }
    bool has_value() const { return ((bits >> 8) & 1U) != 0; }
    std::uint32_t label() const { return bits & 0x800000FFU; }
    std::size_t offset() const { return static_cast<std::size_t>(bits >> 10) << ((bits & 0x200U) != 0 ? 8 : 0); }
};

DETENT_INLINE charsmap::charsmap(std::string bytes, std::string const& subject) {
    auto const word = [&](std::size_t at) {
        std::uint32_t result = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            result |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
        }
        return result;
    };
    auto const wrong = [&] { return error(subject, "has a charsmap that is broken"); };
    if (bytes.size() < 8 || word(0) % 1024 != 0 || word(0) == 0 || word(0) > bytes.size() - 5) {
        throw wrong();
    }
    std::size_t const size = word(0) / 4;
    for (std::size_t i = 0; i < size; ++i) {
        units_.push_back(word(4 + 4 * i));
    }
    texts_ = bytes.substr(4 + 4 * size);
    if (texts_.back() != '\0' || !is_utf8(texts_) || trie_unit{units_[0]}.is_value()) {
        throw wrong();
    }
    for (std::size_t i = 0; i < size; ++i) {
        trie_unit const unit{units_[i]};
        if (unit.is_value()) {
            continue;
        }
        std::size_t const children = i ^ unit.offset();
        if ((children | 0xFFU) >= size) {
            throw wrong();
        }
        if (unit.has_value()) {
            std::size_t const text = trie_unit{units_[children]}.value();
            if (text >= texts_.size() || (static_cast<unsigned char>(texts_[text]) & 0xC0U) == 0x80U) {
                throw wrong();
            }
        }
    }
}

DETENT_INLINE std::optional<std::string_view> charsmap::find(std::string_view text) const {
    std::size_t node = trie_unit{units_[0]}.offset();
    for (char const c : text) {
        auto const byte = static_cast<unsigned char>(c);
        node ^= byte;
        trie_unit const unit{units_[node]};
        if (byte == 0 || unit.label() != byte) {
            break;
        }
        node ^= unit.offset();
        if (unit.has_value()) {
            return std::string_view(texts_.data() + trie_unit{units_[node]}.value()); // ends with a zero byte
        }
    }
    return std::nullopt;
}

DETENT_INLINE std::string charsmap::apply(std::string_view text) const {
    constexpr std::size_t longest = 5;
    std::string result;
    while (!text.empty()) {
        std::string_view cluster = text.substr(0, first_grapheme(text));
        text.remove_prefix(cluster.size());
        if (cluster.size() <= longest) {
            if (auto const found = find(cluster)) {
                result += *found;
                continue;
            }
        }
        while (!cluster.empty()) {
            std::string_view const character = cluster.substr(0, character_size(cluster[0]));
            cluster.remove_prefix(character.size());
            result += find(character).value_or(character);
        }
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::text
