// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/text/byte_characters.hpp"
#include "detent/text/part.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/token_decoder.hpp"
#include "detent/text/utf8.hpp"

namespace detent::inline DETENT_ABI::text {

using token_list = std::vector<std::string>;

// The text with `to` in place of every `from`, which is not empty.
inline std::string with_replaced(std::string_view text, std::string_view from, std::string_view to) {
    std::string result;
    for (std::size_t at = 0; (at = text.find(from)) != std::string_view::npos;) {
        result += text.substr(0, at);
        result += to;
        text.remove_prefix(at + from.size());
    }
    return result += text;
}

inline void join_bytes(token_list& tokens) {
    std::string bytes;
    for (auto const& token : tokens) {
        bytes += bytes_of_characters(token);
    }
    tokens = {valid_utf8(bytes)};
}

// The byte of a token such as <0x0A>; lower case counts too.
inline bool byte_of_token(std::string_view token, std::string& bytes) {
    auto const digit = [](char c) {
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                      : -1;
    };
    if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>' || digit(token[3]) < 0 ||
        digit(token[4]) < 0) {
        return false;
    }
    bytes += static_cast<char>(static_cast<unsigned char>(16 * digit(token[3]) + digit(token[4])));
    return true;
}

// Runs of tokens that stand for bytes become their text, or where that is not UTF-8 as a whole, U+FFFD for each byte.
inline void join_byte_tokens(token_list& tokens) {
    token_list result;
    std::string bytes;
    auto const finish = [&] {
        if (is_utf8(bytes)) {
            if (!bytes.empty()) {
                result.push_back(bytes);
            }
        } else {
            result.insert(result.end(), bytes.size(), std::string(replacement_character));
        }
        bytes.clear();
    };
    for (auto& token : tokens) {
        if (!byte_of_token(token, bytes)) {
            finish();
            result.push_back(std::move(token));
        }
    }
    finish();
    tokens = std::move(result);
}

inline void strip_character(std::string& token, std::string const& character, std::size_t start, std::size_t stop) {
    std::string_view rest = token;
    for (std::size_t i = 0; i < start && rest.substr(0, character.size()) == character; ++i) {
        rest.remove_prefix(character.size());
    }
    for (std::size_t i = 0;
         i < stop && rest.size() >= character.size() && rest.substr(rest.size() - character.size()) == character; ++i) {
        rest.remove_suffix(character.size());
    }
    token = std::string(rest);
}

// What BERT's words need to look like text.
inline std::string cleaned_up(std::string text) {
    using pair = std::pair<std::string_view, std::string_view>;
    constexpr std::array<pair, 11> changes{{{" .", "."},
                                            {" ?", "?"},
                                            {" !", "!"},
                                            {" ,", ","},
                                            {" ' ", "'"},
                                            {" n't", "n't"},
                                            {" 'm", "'m"},
                                            {" do not", " don't"},
                                            {" 's", "'s"},
                                            {" 've", "'ve"},
                                            {" 're", "'re"}}};
    for (auto const& [from, to] : changes) {
        text = with_replaced(text, from, to);
    }
    return text;
}

inline void join_word_pieces(token_list& tokens, std::string const& prefix, bool clean_up) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        auto& token = tokens[i];
        if (i > 0) {
            token = token.rfind(prefix, 0) == 0 ? token.substr(prefix.size()) : " " + token;
        }
        if (clean_up) {
            token = cleaned_up(token);
        }
    }
}

inline void join_metaspaces(token_list& tokens, std::string const& space, bool drops_first) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = with_replaced(tokens[i], space, i == 0 && drops_first ? "" : " ");
    }
}

DETENT_INLINE token_decoder::token_decoder(part const& json) : joins_(true) { add(json); }

DETENT_INLINE std::string token_decoder::operator()(std::vector<std::string> tokens) const {
    for (auto const& apply : steps_) {
        apply(tokens);
    }
    std::string result;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        result += i > 0 && !joins_ ? " " : "";
        result += tokens[i];
    }
    return result;
}

DETENT_INLINE void token_decoder::add(part const& json) {
    std::string const type = json.text("type");
    if (type == "Sequence") {
        for (auto const& inner : json.parts("decoders")) {
            add(inner);
        }
    } else if (type == "ByteLevel") {
        steps_.emplace_back(join_bytes);
    } else if (type == "ByteFallback") {
        steps_.emplace_back(join_byte_tokens);
    } else if (type == "Fuse") {
        steps_.emplace_back([](token_list& tokens) {
            std::string all;
            for (auto const& token : tokens) {
                all += token;
            }
            tokens = {all};
        });
    } else if (type == "Metaspace") {
        std::string space;
        append_utf8(space, json.character("replacement"));
        std::string const scheme =
            json.text("prepend_scheme", json.flag("add_prefix_space", true) ? "always" : "never");
        steps_.emplace_back([=](token_list& tokens) { join_metaspaces(tokens, space, scheme != "never"); });
    } else if (type == "Strip") {
        std::string character;
        append_utf8(character, json.character("content"));
        auto const start = static_cast<std::size_t>(json.number("start"));
        auto const stop = static_cast<std::size_t>(json.number("stop"));
        steps_.emplace_back([=](token_list& tokens) {
            for (auto& token : tokens) {
                strip_character(token, character, start, stop);
            }
        });
    } else if (type == "Replace") {
        steps_.emplace_back([what = json.compiled_pattern(), content = json.text("content")](token_list& tokens) {
            for (auto& token : tokens) {
                token = replaced(token, what, content);
            }
        });
    } else if (type == "WordPiece") {
        steps_.emplace_back([prefix = json.text("prefix", "##"), clean_up = json.flag("cleanup", true)](
                                token_list& tokens) { join_word_pieces(tokens, prefix, clean_up); });
    } else if (type == "BPEDecoder") {
        std::string const suffix = json.text("suffix", "</w>");
        steps_.emplace_back([suffix](token_list& tokens) {
            for (std::size_t i = 0; !suffix.empty() && i < tokens.size(); ++i) {
                tokens[i] = with_replaced(tokens[i], suffix, i + 1 < tokens.size() ? " " : "");
            }
        });
    } else {
        throw json.unknown_type();
    }
}

} // namespace detent::inline DETENT_ABI::text
