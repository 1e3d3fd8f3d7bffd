// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/normalizer.hpp"
#include "detent/text/part.hpp"
#include "detent/text/pattern.hpp"
#include "detent/text/prefix_search.hpp"
#include "detent/text/token_model.hpp"
#include "detent/text/vocabulary.hpp"

namespace detent::inline DETENT_ABI::text {

/// A token that is looked for in text before the model sees it, such as `<|endoftext|>`.
struct added_token {
    std::int32_t id = 0;
    std::string content;
    bool single_word = false; ///< Only where no word character is next to it.
    bool lstrip = false;      ///< Takes the white space before it too.
    bool rstrip = false;      ///< Takes the white space behind it too.
    bool normalized = true;   ///< Looked for in normalized text, by its own normalized content.
    bool special = false;     ///< Left out when text is made from ids without special tokens.

    bool operator==(added_token const&) const = default;
};

/// The tokens of the field `added_tokens` of tokenizer.json, and where they are in a text.
class added_tokens {
public:
    /// A part of a text: an added token or what lies between two.
    struct segment {
        std::string_view text;
        std::optional<std::int32_t> id;
    };

    added_tokens() = default;

    /// Throws `error(subject, ...)` where a token has an id that the model, or another of them, gives to another token.
    added_tokens(std::vector<added_token> list, token_model const& model, normalizer const& normalize,
                 std::string const& subject);

    /// Cuts text at the tokens that are looked for in it as it is, or in its normalized form. Where several begin, the
    /// longest is taken.
    std::vector<segment> split(std::string_view text, bool is_normalized) const;

    /// The text of a token when ids become text: what is looked for in text, so that the decoder turns back what the
    /// normalizer did.
    std::string const& decoded(added_token const& token) const;

    /// The token with that id or content, or null.
    added_token const* find(std::int32_t id) const;
    added_token const* find(std::string_view content) const;

    /// The largest id, -1 without tokens.
    std::int32_t largest_id() const { return tokens_.largest(); }

private:
    std::vector<added_token> list_;
    std::vector<std::string> looked_for_; // of each, its content or normalized content
    vocabulary tokens_;
    std::unordered_map<std::int32_t, std::size_t> places_; // in the list, by id
    prefix_search plain_;
    prefix_search normalized_;
    std::optional<pattern> word_character_;

    bool is_word(std::string_view character) const;
    bool stands_alone(std::string_view before, std::string_view after) const;
};

/// Reads the array `added_tokens` of tokenizer.json.
std::vector<added_token> read_added_tokens(part const& json);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/added_tokens.ipp" // IWYU pragma: export
#endif
