// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/text/part.hpp"
#include "detent/text/utf8.hpp"
#include "detent/text/word_piece_model.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE word_piece_model::word_piece_model(part const& json)
    : vocabulary_model(read_vocabulary(json)), prefix_(json.text("continuing_subword_prefix", "##")),
      longest_piece_(json.find("max_input_chars_per_word") == nullptr
                         ? 100
                         : static_cast<std::size_t>(json.number("max_input_chars_per_word"))) {
    auto const unknown = id(json.text("unk_token", "[UNK]"));
    unknown_ = unknown ? *unknown : throw json.wrong("unk_token", "is not in the vocabulary");
    for (auto const& [token, number] : json.value("vocab").items()) {
        longest_token_ = std::max(longest_token_, token.size());
    }
}

DETENT_INLINE void word_piece_model::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
    std::size_t const before = ids.size();
    std::size_t characters = 0;
    for_each_character(piece, [&](char32_t) { ++characters; });
    bool known = characters <= longest_piece_;
    std::string token;
    for (std::size_t begin = 0; known && begin < piece.size();) {
        token = begin == 0 ? "" : prefix_;
        std::size_t const kept = token.size();
        token += piece.substr(begin, longest_token_);
        known = false;
        while (token.size() > kept) {
            if (auto const found = id(token)) {
                ids.push_back(*found);
                begin += token.size() - kept;
                known = true;
                break;
            }
            do { // shorter by a character
                token.pop_back();
            } while (token.size() > kept && begin + token.size() - kept < piece.size() &&
                     (static_cast<unsigned char>(piece[begin + token.size() - kept]) & 0xC0U) == 0x80U);
        }
    }
    if (!known) {
        ids.resize(before);
        ids.push_back(unknown_);
    }
}

} // namespace detent::inline DETENT_ABI::text
