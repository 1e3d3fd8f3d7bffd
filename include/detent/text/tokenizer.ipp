// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/text/byte_characters.hpp"
#include "detent/text/read_token_model.hpp"
#include "detent/text/tokenizer.hpp"
#include "detent/text/utf8.hpp"
#include "detent/text/word_cache.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE tokenizer_parts read_tokenizer_json(nlohmann::json const& json, std::string const& name) {
    part const all(json, name);
    auto const inner = [&](std::string const& field) { return part(all.value(field), name + ", " + field); };
    auto const has = [&](char const* field) { return all.find(field) != nullptr; };
    tokenizer_parts result;
    result.model = read_token_model(inner("model"));
    if (has("normalizer")) {
        result.normalizer = normalizer(inner("normalizer"));
    }
    result.added_tokens = added_tokens(read_added_tokens(all), *result.model, result.normalizer, name);
    if (has("pre_tokenizer")) {
        result.pre_tokenizer = pre_tokenizer(inner("pre_tokenizer"));
    }
    if (has("post_processor")) {
        result.post_processor = read_post_processor(inner("post_processor"));
    }
    if (has("decoder")) {
        result.decoder = token_decoder(inner("decoder"));
    }
    return result;
}

// A thread that finds the cache in use does without.
struct tokenizer::shared_cache {
    std::mutex in_use;
    word_cache words;
};

DETENT_INLINE tokenizer::tokenizer(tokenizer_parts parts)
    : parts_(std::move(parts)), cache_(std::make_unique<shared_cache>()) {}
DETENT_INLINE tokenizer::tokenizer(tokenizer&&) noexcept = default;
DETENT_INLINE tokenizer& tokenizer::operator=(tokenizer&&) noexcept = default;
DETENT_INLINE tokenizer::~tokenizer() = default;

DETENT_INLINE std::vector<std::int32_t> tokenizer::encode(std::string_view text, bool add_special) const {
    std::string const repaired = is_utf8(text) ? std::string() : valid_utf8(text);
    if (!repaired.empty()) {
        text = repaired;
    }
    std::vector<std::int32_t> ids;
    if (add_special) {
        ids = parts_.post_processor.front;
    }
    for (auto const& segment : parts_.added_tokens.split(text, false)) {
        if (segment.id) {
            ids.push_back(*segment.id);
        } else {
            encode_segment(segment.text, segment.text.data() == text.data(), ids);
        }
    }
    if (add_special) {
        ids.insert(ids.end(), parts_.post_processor.back.begin(), parts_.post_processor.back.end());
    }
    return ids;
}

DETENT_INLINE void tokenizer::encode_segment(std::string_view text, bool at_start,
                                             std::vector<std::int32_t>& ids) const {
    std::string const normalized = parts_.normalizer(std::string(text));
    for (auto const& segment : parts_.added_tokens.split(normalized, true)) {
        if (segment.id) {
            ids.push_back(*segment.id);
        } else {
            bool const first = at_start && segment.text.data() == normalized.data();
            encode_pieces(parts_.pre_tokenizer(std::string(segment.text), first), ids);
        }
    }
}

DETENT_INLINE void tokenizer::encode_pieces(pieces const& p, std::vector<std::int32_t>& ids) const {
    std::unique_lock const lock(cache_->in_use, std::try_to_lock);
    word_cache own;
    word_cache& cache = lock.owns_lock() ? cache_->words : own;
    for (std::size_t i = 0; i < p.list.size(); ++i) {
        std::string_view const piece = p[i];
        if (auto const known = cache.find(piece)) {
            ids.insert(ids.end(), known->begin(), known->end());
            continue;
        }
        std::size_t const before = ids.size();
        if (parts_.pre_tokenizer.gives_bytes()) {
            parts_.model->encode(characters_of_bytes(piece), ids);
        } else {
            parts_.model->encode(piece, ids);
        }
        cache.add(piece, std::span<std::int32_t const>(ids).subspan(before));
    }
}

DETENT_INLINE std::string tokenizer::decode_by_model(std::span<std::int32_t const> ids, bool skip_special) const {
    std::string text;
    std::size_t begin = 0;
    auto const finish = [&](std::size_t end) {
        if (begin < end) {
            text += parts_.model->decode(ids.subspan(begin, end - begin)).value_or("");
        }
        begin = end + 1;
    };
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (auto const* added = parts_.added_tokens.find(ids[i])) {
            finish(i);
            text += skip_special && added->special ? "" : added->content;
        }
    }
    finish(ids.size());
    return text;
}

DETENT_INLINE std::string tokenizer::decode(std::span<std::int32_t const> ids, bool skip_special) const {
    if (parts_.model->decode({})) {
        return decode_by_model(ids, skip_special);
    }
    std::vector<std::string> tokens;
    for (auto const id : ids) {
        auto const* added = parts_.added_tokens.find(id);
        if (added != nullptr && added->special && skip_special) {
            continue;
        }
        if (auto found =
                added != nullptr ? std::optional(parts_.added_tokens.decoded(*added)) : parts_.model->token(id)) {
            tokens.push_back(std::move(*found));
        }
    }
    return parts_.decoder(std::move(tokens));
}

DETENT_INLINE std::optional<std::int32_t> tokenizer::id(std::string_view token) const {
    auto const* added = parts_.added_tokens.find(token);
    return added != nullptr ? std::optional(added->id) : parts_.model->id(token);
}

DETENT_INLINE std::optional<std::string> tokenizer::token(std::int32_t id) const {
    auto const* added = parts_.added_tokens.find(id);
    return added != nullptr ? std::optional(added->content) : parts_.model->token(id);
}

DETENT_INLINE std::int32_t tokenizer::largest_id() const {
    std::int32_t largest = std::max(parts_.model->largest_id(), parts_.added_tokens.largest_id());
    for (auto const* const around : {&parts_.post_processor.front, &parts_.post_processor.back}) {
        for (auto const id : *around) { // a file may put any there
            largest = std::max(largest, id);
        }
    }
    return largest;
}

// What is new in the text of all ids that are kept. A decoder may change what it gave before, which cannot be taken
// back: then it is what follows the part that stayed.
DETENT_INLINE std::string text_stream::news(std::string const& text) const {
    std::size_t same = 0;
    while (same < text.size() && same < shown_.size() && text[same] == shown_[same]) {
        ++same;
    }
    while (same > 0 && same < text.size() && (static_cast<unsigned char>(text[same]) & 0xC0U) == 0x80U) {
        --same;
    }
    return text.substr(same);
}

// Where the last three characters or fewer of U+FFFD begin that end a text: a character of which bytes are missing is
// one of them, or with tokens for single bytes up to three.
inline std::size_t end_of_settled(std::string_view text) {
    std::size_t const size = replacement_character.size();
    std::size_t end = text.size();
    while (end >= size && text.size() - end < 3 * size && text.substr(end - size, size) == replacement_character) {
        end -= size;
    }
    return end;
}

DETENT_INLINE std::string text_stream::push(std::int32_t id) {
    constexpr std::size_t short_wait = 8; // more tokens than a character has bytes
    constexpr std::size_t long_wait = 64; // then what came, if anything, is no text
    ids_.push_back(id);
    std::size_t const waiting = ids_.size() - returned_;
    std::string text = tokenizer_.decode(ids_, skip_special_);
    std::size_t const settled = waiting < long_wait ? end_of_settled(text) : text.size();
    bool const incomplete = settled < text.size();
    if (incomplete && waiting < short_wait) {
        return {};
    }
    text.resize(settled);
    std::string result = news(text);
    if (waiting < long_wait && (incomplete || result.empty())) {
        shown_ = result.empty() ? shown_ : text;
        return result;
    }
    if (result.empty()) {
        ids_.resize(returned_); // what has no text is forgotten
        return result;
    }
    // The ids that gave this text stay before the next, which may look otherwise as the first of all.
    ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(returned_));
    returned_ = ids_.size();
    shown_ = tokenizer_.decode(ids_, skip_special_);
    return result;
}

DETENT_INLINE std::string text_stream::finish() {
    std::string result = news(tokenizer_.decode(ids_, skip_special_));
    ids_.clear();
    returned_ = 0;
    shown_.clear();
    return result;
}

} // namespace detent::inline DETENT_ABI::text
