// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/text/byte_characters.hpp"
#include "detent/text/part.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/pre_tokenizer.hpp"
#include "detent/text/unicode.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

// A stretch of text that is a match, or lies between matches.
struct stretch {
    std::size_t begin;
    std::size_t end;
    bool match;
};

// The stretches that a pattern cuts a text into; an empty match is an empty stretch.
inline auto stretches_of(pattern const& what) {
    return [what](std::string_view text, std::vector<stretch>& result) {
        std::size_t done = 0;
        for (pattern_matches match(what, text); match.next();) {
            if (match.begin() > done) {
                result.push_back({done, match.begin(), false});
            }
            result.push_back({match.begin(), match.end(), true});
            done = match.end();
        }
        if (done < text.size()) {
            result.push_back({done, text.size(), false});
        }
    };
}

// The stretches that single characters cut a text into.
template <class Is> auto stretches_at(Is is) {
    return [is](std::string_view text, std::vector<stretch>& result) {
        std::size_t done = 0;
        for (std::string_view rest = text; !rest.empty();) {
            std::size_t const begin = text.size() - rest.size();
            if (is(take_character(rest))) {
                std::size_t const end = text.size() - rest.size();
                if (begin > done) {
                    result.push_back({done, begin, false});
                }
                result.push_back({begin, end, true});
                done = end;
            }
        }
        if (done < text.size()) {
            result.push_back({done, text.size(), false});
        }
    };
}

// Joins stretches as the behavior says, which looks at whether the one before was a match too.
inline void arrange(std::vector<stretch>& list, split_behavior behavior) {
    if (behavior == split_behavior::isolated) {
        return;
    }
    if (behavior == split_behavior::removed) {
        std::erase_if(list, [](stretch const& s) { return s.match; });
        return;
    }
    bool const backwards = behavior == split_behavior::merged_with_next;
    if (backwards) {
        std::ranges::reverse(list);
    }
    std::vector<stretch> result;
    bool before = false;
    for (auto const& s : list) {
        bool const joined = behavior == split_behavior::contiguous ? s.match == before : s.match && !before;
        if (joined && !result.empty()) {
            (backwards ? result.back().begin : result.back().end) = backwards ? s.begin : s.end;
        } else {
            result.push_back(s);
        }
        before = s.match;
    }
    if (backwards) {
        std::ranges::reverse(result);
    }
    list = std::move(result);
}

// Cuts every piece into stretches and these into pieces.
template <class Stretches> void split(pieces& p, Stretches const& cut, split_behavior behavior, bool invert = false) {
    std::vector<pieces::piece> result;
    std::vector<stretch> list;
    for (std::size_t i = 0; i < p.list.size(); ++i) {
        std::size_t const begin = p.list[i].begin;
        list.clear();
        cut(p[i], list);
        if (invert) {
            for (auto& s : list) {
                s.match = !s.match;
            }
        }
        arrange(list, behavior);
        for (auto const& s : list) {
            if (s.begin < s.end) {
                result.push_back({begin + s.begin, begin + s.end});
            }
        }
    }
    p.at_start = p.at_start && !p.list.empty() && !result.empty() && result[0].begin == p.list[0].begin;
    p.list = std::move(result);
}

// Puts what `f` appends for each piece in its place.
template <class F> void rewrite(pieces& p, F const& f) {
    std::string text;
    text.reserve(p.text.size() + p.list.size());
    for (std::size_t i = 0; i < p.list.size(); ++i) {
        std::size_t const begin = text.size();
        f(text, p[i], p.at_start && i == 0);
        p.list[i] = {begin, text.size()};
    }
    p.text = std::move(text);
}

inline split_behavior behavior_of(part const& json, std::optional<std::string> missing = std::nullopt) {
    std::string const name = json.text("behavior", std::move(missing));
    if (name == "Removed") {
        return split_behavior::removed;
    }
    if (name == "Isolated") {
        return split_behavior::isolated;
    }
    if (name == "MergedWithPrevious") {
        return split_behavior::merged_with_previous;
    }
    if (name == "MergedWithNext") {
        return split_behavior::merged_with_next;
    }
    if (name == "Contiguous") {
        return split_behavior::contiguous;
    }
    throw json.wrong("behavior", "is '" + io::printable(name) + "', which detent does not know");
}

DETENT_INLINE pre_tokenizer::pre_tokenizer(part const& json) {
    add(json);
    if (gives_bytes_) {
        steps_.pop_back();
    }
}

DETENT_INLINE pieces pre_tokenizer::operator()(std::string text, bool at_start) const {
    pieces result{std::move(text), {}, at_start};
    if (!result.text.empty()) {
        result.list.push_back({0, result.text.size()});
    }
    for (auto const& apply : steps_) {
        apply(result);
    }
    return result;
}

DETENT_INLINE void pre_tokenizer::add(part const& json) {
    std::string const type = json.text("type");
    auto const cut = [this](auto stretches, split_behavior behavior, bool invert = false) {
        steps_.emplace_back([=](pieces& p) { split(p, stretches, behavior, invert); });
    };
    gives_bytes_ = false;
    if (type == "Sequence") {
        for (auto const& inner : json.parts("pretokenizers")) {
            add(inner);
        }
    } else if (type == "ByteLevel") {
        add_byte_level(json);
    } else if (type == "Split") {
        cut(stretches_of(json.compiled_pattern()), behavior_of(json), json.flag("invert", false));
    } else if (type == "Digits") {
        cut(stretches_at(is_number),
            json.flag("individual_digits", false) ? split_behavior::isolated : split_behavior::contiguous);
    } else if (type == "Punctuation") {
        cut(stretches_at(is_punctuation), behavior_of(json, "Isolated"));
    } else if (type == "Whitespace") {
        // What a word character is in the Rust library `regex`.
        std::string const word = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}";
        pattern const words("[" + word + "]+|[^" + word + "\\p{White_Space}]+", pattern_syntax::pcre2, json.name());
        cut(stretches_of(words), split_behavior::removed, true);
    } else if (type == "WhitespaceSplit") {
        cut(stretches_at(is_white_space), split_behavior::removed);
    } else if (type == "Metaspace") {
        add_metaspace(json);
    } else if (type == "BertPreTokenizer") {
        cut(stretches_at(is_white_space), split_behavior::removed);
        cut(stretches_at(is_punctuation), split_behavior::isolated);
    } else if (type == "CharDelimiterSplit") {
        cut(stretches_at([at = json.character("delimiter")](char32_t c) { return c == at; }), split_behavior::removed);
    } else {
        throw json.unknown_type();
    }
}

DETENT_INLINE void pre_tokenizer::add_byte_level(part const& json) {
    if (json.flag("add_prefix_space", true)) {
        steps_.emplace_back([](pieces& p) {
            rewrite(p, [](std::string& text, std::string_view piece, bool) {
                text += piece.front() == ' ' ? "" : " ";
                text += piece;
            });
        });
    }
    if (json.flag("use_regex", true)) {
        // GPT-2's own expression.
        pattern const words("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
                            pattern_syntax::oniguruma, json.name());
        steps_.emplace_back([cut = stretches_of(words)](pieces& p) { split(p, cut, split_behavior::isolated); });
    }
    steps_.emplace_back([](pieces& p) {
        rewrite(p, [](std::string& text, std::string_view piece, bool) { text += characters_of_bytes(piece); });
    });
    gives_bytes_ = true;
}

DETENT_INLINE void pre_tokenizer::add_metaspace(part const& json) {
    char32_t const space = json.character("replacement");
    std::string const scheme = json.text("prepend_scheme", json.flag("add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never") {
        throw json.wrong("prepend_scheme", "is '" + io::printable(scheme) + "'; expected always, first or never");
    }
    std::string replacement;
    append_utf8(replacement, space);
    steps_.emplace_back([=](pieces& p) {
        rewrite(p, [&](std::string& text, std::string_view piece, bool first) {
            bool const wanted = scheme == "always" || (scheme == "first" && first);
            if (wanted && piece.front() != ' ' && piece.substr(0, replacement.size()) != replacement) {
                text += replacement;
            }
            for (char const c : piece) {
                c == ' ' ? text += replacement : text += c;
            }
        });
    });
    if (json.flag("split", true)) {
        steps_.emplace_back([cut = stretches_at([space](char32_t c) { return c == space; })](pieces& p) {
            split(p, cut, split_behavior::merged_with_next);
        });
    }
}

} // namespace detent::inline DETENT_ABI::text
