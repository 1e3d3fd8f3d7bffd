// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/text/byte_characters.hpp"
#include "detent/text/charsmap.hpp"
#include "detent/text/normalizer.hpp"
#include "detent/text/part.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/unicode.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

// The text made of what `f` appends for each character.
template <class F> std::string mapped_characters(std::string_view text, F const& f) {
    std::string result;
    result.reserve(text.size());
    for_each_character(text, [&](char32_t c) { f(result, c); });
    return result;
}

template <class Keep> std::string kept_characters(std::string_view text, Keep const& keep) {
    return mapped_characters(text, [&](std::string& result, char32_t c) {
        if (keep(c)) {
            append_utf8(result, c);
        }
    });
}

inline std::string lowercase(std::string_view text) {
    return mapped_characters(text, [](std::string& result, char32_t c) { append_lowercase(result, c); });
}

// The blocks of ideographs that BERT puts spaces around.
constexpr bool is_ideograph(char32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

struct bert_options {
    bool clean_text;
    bool handle_chinese_chars;
    bool strip_accents;
    bool lowercase;
};

inline std::string bert_normalized(std::string text, bert_options const& options) {
    if (options.clean_text) {
        text = mapped_characters(text, [](std::string& result, char32_t c) {
            if (c == '\t' || c == '\n' || c == '\r' || (is_white_space(c) && !is_control(c))) {
                result += ' ';
            } else if (c != 0 && c != 0xFFFD && !is_control(c)) {
                append_utf8(result, c);
            }
        });
    }
    if (options.handle_chinese_chars) {
        text = mapped_characters(text, [](std::string& result, char32_t c) {
            bool const apart = is_ideograph(c);
            result += apart ? " " : "";
            append_utf8(result, c);
            result += apart ? " " : "";
        });
    }
    if (options.strip_accents) {
        text = kept_characters(normalized(text, normal_form::nfd), [](char32_t c) { return !is_nonspacing_mark(c); });
    }
    return options.lowercase ? lowercase(text) : text;
}

// The rules of NMT that SentencePiece has too: no control characters, and a space for what looks like one.
inline std::string nmt_normalized(std::string_view text) {
    return mapped_characters(text, [](std::string& result, char32_t c) {
        bool const removed =
            (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
        bool const space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                           (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF ||
                           c == 0xFFFD;
        if (!removed) {
            append_utf8(result, space ? U' ' : c);
        }
    });
}

DETENT_INLINE normalizer::normalizer(part const& json) { add(json); }

DETENT_INLINE std::string normalizer::operator()(std::string text) const {
    std::size_t const longest = longest_replacement(text.size());
    for (auto const& apply : steps_) {
        text = apply(std::move(text));
        if (text.size() > longest) {
            throw error("text", "becomes more than 64 times as long when it is normalized");
        }
    }
    return text;
}

DETENT_INLINE void normalizer::add(part const& json) {
    std::string const type = json.text("type");
    auto const form = [&](normal_form f) {
        steps_.emplace_back([f](std::string text) { return normalized(text, f); });
    };
    if (type == "Sequence") {
        for (auto const& inner : json.parts("normalizers")) {
            add(inner);
        }
    } else if (type == "NFC") {
        form(normal_form::nfc);
    } else if (type == "NFD") {
        form(normal_form::nfd);
    } else if (type == "NFKC") {
        form(normal_form::nfkc);
    } else if (type == "NFKD") {
        form(normal_form::nfkd);
    } else if (type == "Lowercase") {
        steps_.emplace_back([](std::string text) { return lowercase(text); });
    } else if (type == "StripAccents") {
        steps_.emplace_back(
            [](std::string text) { return kept_characters(text, [](char32_t c) { return !is_mark(c); }); });
    } else if (type == "BertNormalizer") {
        bool const lower = json.flag("lowercase", true);
        bert_options const options{json.flag("clean_text", true), json.flag("handle_chinese_chars", true),
                                   json.flag("strip_accents", lower), lower};
        steps_.emplace_back([options](std::string text) { return bert_normalized(std::move(text), options); });
    } else if (type == "Replace") {
        steps_.emplace_back([what = json.compiled_pattern(), content = json.text("content")](std::string text) {
            return replaced(text, what, content);
        });
    } else if (type == "Prepend") {
        steps_.emplace_back(
            [front = json.text("prepend")](std::string text) { return text.empty() ? text : front + text; });
    } else if (type == "Strip") {
        steps_.emplace_back([left = json.flag("strip_left"), right = json.flag("strip_right")](std::string text) {
            return std::string(without_white_space(text, left, right));
        });
    } else if (type == "Nmt") {
        steps_.emplace_back([](std::string text) { return nmt_normalized(text); });
    } else if (type == "ByteLevel") {
        steps_.emplace_back([](std::string text) { return characters_of_bytes(text); });
    } else if (type == "Precompiled") {
        auto map =
            std::make_shared<charsmap const>(base64_bytes(json.text("precompiled_charsmap"), json.name()), json.name());
        steps_.emplace_back([map](std::string text) { return map->apply(text); });
    } else {
        throw json.unknown_type();
    }
}

} // namespace detent::inline DETENT_ABI::text
