// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "detent/core/needs_exceptions.hpp"
#include "detent/text/sentence_piece_file.hpp"

namespace detent::inline DETENT_ABI {

/// What tokens are for, with the numbers of GGUF, which are SentencePiece's.
using gguf_token_kind = text::sentence_piece_file::kind;

/// A pattern that cuts text into words, and the name that llama.cpp has for it.
struct gguf_words {
    std::string_view name;
    std::string pattern; ///< none for GPT-2's, which ByteLevel has
    bool digits = false; ///< digits stand alone before that
};

/// The patterns that are known. Other names of llama.cpp mean the same as one of them.
inline std::array<gguf_words, 6> const& gguf_word_patterns() {
    static std::string const ending = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", spaces = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
    static std::string const after = R"( ?[^\s\p{L}\p{N}]+[\r\n]*|)" + spaces;
    static std::string const after_path = R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|)" + spaces;
    static std::string const any_word = ending + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)";
    static std::string const upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
    static std::string const before = R"([^\r\n\p{L}\p{N}]?)";
    static std::string const cased[] = {before + upper + "*" + lower + "+", before + upper + "+" + lower + "*"};
    static std::array<gguf_words, 6> const all{{
        {"gpt-2", ""},
        {"starcoder", "", true},
        {"qwen2", any_word + R"(\p{N}|)" + after},
        {"llama-bpe", any_word + R"(\p{N}{1,3}|)" + after},
        {"gpt-4o", cased[0] + ending + "?|" + cased[1] + ending + R"(?|\p{N}{1,3}|)" + after_path},
        {"tekken", cased[0] + "|" + cased[1] + R"(|\p{N}|)" + after_path},
    }};
    return all;
}

/// Names that mean the same as one above.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 12> gguf_word_aliases{{
    {"default", "gpt-2"},
    {"mpt", "gpt-2"},
    {"olmo", "gpt-2"},
    {"phi-2", "gpt-2"},
    {"jais", "gpt-2"},
    {"roberta-bpe", "gpt-2"},
    {"stablelm2", "qwen2"},
    {"llama3", "llama-bpe"},
    {"smaug-bpe", "llama-bpe"},
    {"refact", "starcoder"},
    {"smollm", "starcoder"},
    {"command-r", "starcoder"},
}};

} // namespace detent::inline DETENT_ABI
