// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/part.hpp"
#include "detent/text/prefix_search.hpp"
#include "detent/text/unigram_model.hpp"
#include "detent/text/utf8.hpp"
#include "detent/text/vocabulary.hpp"

namespace detent::inline DETENT_ABI::text {

inline vocabulary read_scored_vocabulary(part const& json) {
    auto const& list = json.value("vocab");
    if (!list.is_array() || list.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
        throw json.wrong("vocab", "is not an array of tokens with log probabilities");
    }
    vocabulary result;
    for (std::size_t i = 0; i < list.size(); ++i) {
        auto const& entry = list[i];
        if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
            throw json.wrong("vocab", "has " + io::printable(entry.dump()) + ", not a token and its log probability");
        }
        result.add(entry[0].get<std::string>(), static_cast<std::int32_t>(i), json.name() + ", vocab");
    }
    return result;
}

DETENT_INLINE unigram_model::unigram_model(part const& json)
    : vocabulary_model(read_scored_vocabulary(json)), name_(json.name()),
      byte_fallback_(json.flag("byte_fallback", false)) {
    constexpr double penalty = 10;
    double lowest = std::numeric_limits<double>::max();
    std::vector<prefix_search::entry> entries;
    for (auto const& entry : json.value("vocab")) {
        scores_.push_back(entry[1].get<double>());
        lowest = std::min(lowest, scores_.back());
        if (auto const& token = entry[0].get_ref<std::string const&>(); !token.empty()) {
            entries.emplace_back(token, static_cast<std::int32_t>(scores_.size() - 1));
        }
    }
    unknown_score_ = lowest - penalty;
    search_ = prefix_search(std::move(entries));
    if (json.find("unk_id") != nullptr) {
        unknown_ = json.number("unk_id");
        if (static_cast<std::size_t>(*unknown_) >= scores_.size()) {
            throw json.wrong("unk_id", "is " + std::to_string(*unknown_) + ", beyond the vocabulary of " +
                                           std::to_string(scores_.size()) + " tokens");
        }
    }
}

DETENT_INLINE void unigram_model::append_text(std::string_view text, std::vector<std::int32_t>& ids) const {
    // A token, or characters that are unknown one by one and can be one together.
    if (auto const whole = id(text)) {
        ids.push_back(*whole);
    } else if (!byte_fallback_ || !append_byte_tokens(tokens(), text, ids)) {
        ids.push_back(*unknown_);
    }
}

DETENT_INLINE void unigram_model::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
    // The best way to each place: its score, where its last token begins, and which that is.
    struct way {
        double score = 0;
        std::size_t begin = 0;
        std::int32_t id = -1;
    };
    std::vector<way> best(piece.size() + 1);
    auto const offer = [&](std::size_t begin, std::size_t size, double score, std::int32_t id) {
        way& there = best[begin + size];
        double const sum = score + best[begin].score;
        if (there.id < 0 || sum > there.score) {
            there = {sum, begin, id};
        }
    };
    for (std::size_t begin = 0; begin < piece.size();) {
        std::size_t const character = character_size(piece[begin]);
        bool is_token = false;
        search_.for_each(piece.substr(begin), [&](std::size_t size, std::int32_t id) {
            offer(begin, size, scores_[static_cast<std::size_t>(id)], id);
            is_token = is_token || size == character;
        });
        if (!is_token) {
            if (!unknown_) {
                throw error(name_, "a text has a character for which there is no token, and there is no unk_id");
            }
            offer(begin, character, unknown_score_, *unknown_);
        }
        begin += character;
    }
    std::vector<std::pair<std::size_t, std::size_t>> spans; // from the last to the first
    bool joined = false;
    for (std::size_t end = piece.size(); end > 0; end = best[end].begin) {
        bool const is_unknown = best[end].id == unknown_;
        if (is_unknown && joined) {
            spans.back().first = best[end].begin;
        } else {
            spans.emplace_back(best[end].begin, end);
        }
        joined = is_unknown;
    }
    for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        std::string_view const text = piece.substr(span->first, span->second - span->first);
        append_text(text, ids);
    }
}

} // namespace detent::inline DETENT_ABI::text
