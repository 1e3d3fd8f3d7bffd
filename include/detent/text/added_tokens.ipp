// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/text/added_tokens.hpp"
#include "detent/text/normalizer.hpp"
#include "detent/text/part.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/unicode.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

DETENT_INLINE std::vector<added_token> read_added_tokens(part const& json) {
    std::vector<added_token> result;
    if (json.find("added_tokens") == nullptr) {
        return result;
    }
    for (auto const& token : json.parts("added_tokens")) {
        bool const special = token.flag("special", false);
        result.push_back({token.number("id"), token.text("content"), token.flag("single_word", false),
                          token.flag("lstrip", false), token.flag("rstrip", false), token.flag("normalized", !special),
                          special});
    }
    return result;
}

DETENT_INLINE added_tokens::added_tokens(std::vector<added_token> list, token_model const& model,
                                         normalizer const& normalize, std::string const& subject) {
    std::vector<prefix_search::entry> plain;
    std::vector<prefix_search::entry> after_normalizer;
    for (auto& token : list) {
        std::string const name = subject + ", added token '" + io::printable(token.content) + "'";
        if (token.content.empty()) {
            continue;
        }
        if (auto const* same = find(token.content); same != nullptr) {
            if (*same == token) {
                continue;
            }
            throw error(name, "is there twice");
        }
        auto const known = model.id(token.content);
        if (known ? *known != token.id : model.token(token.id).has_value()) {
            throw error(name, "has id " + std::to_string(token.id) + ", but the vocabulary says otherwise");
        }
        tokens_.add(token.content, token.id, subject + ", added tokens");
        places_.emplace(token.id, list_.size());
        std::string looked_for = token.normalized ? normalize(token.content) : token.content;
        if (!looked_for.empty()) {
            auto& entries = token.normalized ? after_normalizer : plain;
            entries.emplace_back(looked_for, static_cast<std::int32_t>(list_.size()));
        }
        if (token.single_word && !word_character_) {
            word_character_.emplace("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]", pattern_syntax::pcre2,
                                    subject);
        }
        list_.push_back(std::move(token));
        looked_for_.push_back(std::move(looked_for));
    }
    plain_ = prefix_search(std::move(plain));
    normalized_ = prefix_search(std::move(after_normalizer));
}

DETENT_INLINE added_token const* added_tokens::find(std::int32_t id) const {
    auto const found = places_.find(id);
    return found == places_.end() ? nullptr : &list_[found->second];
}

DETENT_INLINE std::string const& added_tokens::decoded(added_token const& token) const {
    return looked_for_[places_.at(token.id)];
}

DETENT_INLINE added_token const* added_tokens::find(std::string_view content) const {
    auto const id = tokens_.id(content);
    return id ? find(*id) : nullptr;
}

DETENT_INLINE bool added_tokens::is_word(std::string_view character) const {
    return pattern_matches(*word_character_, character).next();
}

DETENT_INLINE bool added_tokens::stands_alone(std::string_view before, std::string_view after) const {
    return (before.empty() || !is_word(before.substr(last_character(before)))) &&
           (after.empty() || !is_word(after.substr(0, character_size(after[0]))));
}

DETENT_INLINE std::vector<added_tokens::segment> added_tokens::split(std::string_view text, bool is_normalized) const {
    prefix_search const& search = is_normalized ? normalized_ : plain_;
    std::vector<segment> result;
    std::size_t done = 0;
    for (std::size_t i = 0; !search.empty() && i < text.size();) {
        std::size_t size = 0;
        std::int32_t number = 0;
        if (search.begins(text[i])) {
            search.for_each(text.substr(i), [&](std::size_t s, std::int32_t n) {
                size = s;
                number = n;
            });
        }
        if (size == 0) {
            ++i;
            continue;
        }
        added_token const& token = list_[static_cast<std::size_t>(number)];
        std::size_t begin = i;
        std::size_t end = i + size;
        i = end; // a match that is no single word is passed over too
        if (token.single_word && !stands_alone(text.substr(0, begin), text.substr(end))) {
            continue;
        }
        if (token.lstrip) {
            begin = std::max(done, without_white_space(text.substr(0, begin), false, true).size());
        }
        if (token.rstrip) {
            end = text.size() - without_white_space(text.substr(end), true, false).size();
        }
        if (begin > done) {
            result.push_back({text.substr(done, begin - done), std::nullopt});
        }
        result.push_back({text.substr(i - size, size), token.id});
        done = end;
    }
    if (done < text.size()) {
        result.push_back({text.substr(done), std::nullopt});
    }
    return result;
}

} // namespace detent::inline DETENT_ABI::text
