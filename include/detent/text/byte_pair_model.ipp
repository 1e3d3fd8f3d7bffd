// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/byte_pair_model.hpp"
#include "detent/text/part.hpp"
#include "detent/text/unicode.hpp"
#include "detent/text/utf8.hpp"
#include "detent/text/vocabulary.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE byte_pair_model::byte_pair_model(part const& json)
    : vocabulary_model(read_vocabulary(json)), name_(json.name()), prefix_(json.text("continuing_subword_prefix", "")),
      suffix_(json.text("end_of_word_suffix", "")), fuse_unknown_(json.flag("fuse_unk", false)),
      byte_fallback_(json.flag("byte_fallback", false)), ignore_merges_(json.flag("ignore_merges", false)) {
    if (auto const* dropout = json.find("dropout"); dropout != nullptr && *dropout != 0) {
        throw json.wrong("dropout", "is " + io::printable(dropout->dump()) + ", which detent does not read");
    }
    if (json.find("unk_token") != nullptr) {
        unknown_ = json.text("unk_token");
    }
    read_merges(json);
}

DETENT_INLINE void byte_pair_model::read_merges(part const& json) {
    auto const& list = json.value("merges");
    if (!list.is_array()) {
        throw json.wrong("merges", "is not an array");
    }
    std::size_t rank = 0;
    for (auto const& entry : list) {
        if (entry.is_string()) {
            auto const& text = entry.get_ref<std::string const&>();
            if (text.rfind("#version", 0) == 0) {
                continue;
            }
            auto const space = text.find(' ');
            if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
                throw json.wrong("merges", "has '" + io::printable(text) + "', not two tokens with a space between");
            }
            add_merge(text.substr(0, space), text.substr(space + 1), rank, json);
        } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
            add_merge(entry[0].get<std::string>(), entry[1].get<std::string>(), rank, json);
        } else {
            throw json.wrong("merges", "has " + io::printable(entry.dump()) + ", not a pair of tokens");
        }
        ++rank;
    }
    if (rank > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
        throw json.wrong("merges", "has more than 2147483647 entries");
    }
}

DETENT_INLINE void byte_pair_model::add_merge(std::string const& left, std::string const& right, std::size_t rank,
                                              part const& json) {
    auto const known = [&](std::string const& token) {
        auto const found = id(token);
        return found ? *found
                     : throw json.wrong("merges", "entry " + std::to_string(rank) + " is about '" +
                                                      io::printable(token) + "', which is not in the vocabulary");
    };
    std::int32_t const left_id = known(left);
    std::int32_t const right_id = known(right);
    if (right.size() < prefix_.size()) {
        throw json.wrong("merges", "entry " + std::to_string(rank) + " does not begin with the prefix of subwords");
    }
    bool const of_bytes = byte_fallback_ && (left.rfind("<0x", 0) == 0 || right.rfind("<0x", 0) == 0);
    if (of_bytes || left.empty() || right.empty() || left == unknown_ || right == unknown_ || !prefix_.empty() ||
        !suffix_.empty()) {
        all_joined_ = true;
    } else if (auto const last = id(left.substr(last_character(left)))) {
        if (auto const first = id(right.substr(0, character_size(right[0])))) {
            joined_.set(*last, *first, {});
        }
    }
    merges_.set(left_id, right_id, {static_cast<std::int32_t>(rank), known(left + right.substr(prefix_.size()))});
}

// The tokens of single characters. An unknown one waits, because others may join it, and goes in before the next that
// is known; bytes that stand for a character do not call it in, as in `tokenizers`.
DETENT_INLINE std::vector<std::int32_t> byte_pair_model::characters(std::string_view piece) const {
    std::vector<std::int32_t> ids;
    std::optional<std::int32_t> waiting;
    std::string token;
    for (std::string_view rest = piece; !rest.empty();) {
        std::string_view const character = rest.substr(0, character_size(rest[0]));
        bool const first = rest.size() == piece.size();
        rest.remove_prefix(character.size());
        token = first ? "" : prefix_;
        token += character;
        token += rest.empty() ? suffix_ : "";
        if (auto const known = id(token)) {
            if (waiting) {
                ids.push_back(*std::exchange(waiting, std::nullopt));
            }
            ids.push_back(*known);
            continue;
        }
        if ((byte_fallback_ && append_byte_tokens(tokens(), token, ids)) || !unknown_) {
            continue;
        }
        auto const unknown = id(*unknown_);
        if (!unknown) {
            throw error(name_, "a text has '" + io::printable(character) + "', for which there is no token, and the " +
                                   "unknown token '" + io::printable(*unknown_) + "' is not in the vocabulary");
        }
        if (waiting && !fuse_unknown_) {
            ids.push_back(*waiting);
        }
        waiting = *unknown;
    }
    if (waiting) {
        ids.push_back(*waiting);
    }
    return ids;
}

DETENT_INLINE void byte_pair_model::merge_run(std::span<std::int32_t const> run, std::vector<std::int32_t>& ids) const {
    if (run.size() == 1) {
        ids.push_back(run[0]);
        return;
    }
    std::vector<symbol> symbols;
    for (std::int32_t const token : run) {
        std::ptrdiff_t const place = std::ssize(symbols);
        symbols.push_back({token, place - 1, place + 1});
    }
    symbols.back().after = -1;
    merge_all(symbols);
    for (auto const& s : symbols) {
        if (s.id >= 0) {
            ids.push_back(s.id);
        }
    }
}

DETENT_INLINE void byte_pair_model::merge_all(std::vector<symbol>& symbols) const {
    // A pair and what it becomes. The lowest rank is first, then what is further left: both are in one number.
    struct candidate {
        std::uint64_t order;
        std::int32_t id;
        bool operator>(candidate const& other) const { return order > other.order; }
    };
    std::vector<candidate> candidates;
    auto const at = [&](std::ptrdiff_t i) -> symbol& { return symbols[static_cast<std::size_t>(i)]; };
    auto const offer = [&](std::ptrdiff_t left, std::ptrdiff_t right, auto const& add) {
        if (left >= 0 && right >= 0) {
            if (auto const* found = merges_.find(at(left).id, at(right).id)) {
                add(candidate{(static_cast<std::uint64_t>(found->rank) << 32) | static_cast<std::uint64_t>(left),
                              found->id});
            }
        }
    };
    for (std::ptrdiff_t i = 0; i + 1 < std::ssize(symbols); ++i) {
        offer(i, i + 1, [&](candidate const& c) { candidates.push_back(c); });
    }
    std::priority_queue<candidate, std::vector<candidate>, std::greater<>> queue(std::greater<>(),
                                                                                 std::move(candidates));
    auto const push = [&](candidate const& c) { queue.push(c); };
    while (!queue.empty()) {
        auto const [order, id] = queue.top();
        auto const place = static_cast<std::ptrdiff_t>(order & 0xFFFFFFFF);
        queue.pop();
        symbol& left = at(place);
        if (left.id < 0 || left.after < 0) {
            continue;
        }
        symbol& right = at(left.after);
        auto const* found = merges_.find(left.id, right.id);
        if (found == nullptr || found->id != id) {
            continue; // one of the two has become another token since
        }
        left.id = id;
        left.after = right.after;
        right.id = -1;
        if (left.after >= 0) {
            at(left.after).before = place;
        }
        offer(left.before, place, push);
        offer(place, left.after, push);
    }
}

DETENT_INLINE void byte_pair_model::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
    if (ignore_merges_) {
        if (auto const whole = id(piece)) {
            ids.push_back(*whole);
            return;
        }
    }
    if (piece.size() > std::numeric_limits<std::uint32_t>::max()) {
        throw error(name_, "a piece of text has more than 4294967295 bytes");
    }
    auto const list = characters(piece);
    std::size_t begin = 0;
    for (std::size_t end = 1; end <= list.size(); ++end) {
        if (end == list.size() || (!all_joined_ && joined_.find(list[end - 1], list[end]) == nullptr)) {
            merge_run(std::span(list).subspan(begin, end - begin), ids);
            begin = end;
        }
    }
}

} // namespace detent::inline DETENT_ABI::text
