// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/abi.hpp"
#include "detent/text/added_tokens.hpp"
#include "detent/text/normalizer.hpp"
#include "detent/text/post_processor.hpp"
#include "detent/text/pre_tokenizer.hpp"
#include "detent/text/token_decoder.hpp"
#include "detent/text/token_model.hpp"

namespace detent::inline DETENT_ABI::text {

/// What a tokenizer is made of, in the order in which text goes through it.
struct tokenizer_parts {
    std::unique_ptr<token_model> model;
    text::normalizer normalizer;
    text::added_tokens added_tokens;
    text::pre_tokenizer pre_tokenizer;
    text::post_processor post_processor;
    token_decoder decoder;
};

/// Reads the parts of a tokenizer.json; `name` is for errors. What would cut or fill texts, `truncation` and `padding`,
/// is the caller's business and not read. Throws `error` that names the part and what is wrong with it, or refuses it
/// by the name of its type.
tokenizer_parts read_tokenizer_json(nlohmann::json const& json, std::string const& name);

/// Turns text into token ids and back, as the library `tokenizers` does with the same parts. Its functions may be
/// called by several threads; a cache of words serves one of them at a time.
class tokenizer {
public:
    explicit tokenizer(tokenizer_parts parts);
    tokenizer(tokenizer&&) noexcept;
    tokenizer& operator=(tokenizer&&) noexcept;
    ~tokenizer();

    /// The ids of a text, with `add_special` between those that the model wants around it. Bytes that are not UTF-8 are
    /// read as U+FFFD. Throws `error` where the model has no token for a character and none for unknown ones.
    std::vector<std::int32_t> encode(std::string_view text, bool add_special) const;

    /// The text of ids, valid UTF-8, with `skip_special` without special tokens. An id without a token has no text.
    std::string decode(std::span<std::int32_t const> ids, bool skip_special = false) const;

    /// The id of a token as the vocabulary or the added tokens have it, or nothing.
    std::optional<std::int32_t> id(std::string_view token) const;

    /// The token of an id as the vocabulary or the added tokens have it, or nothing.
    std::optional<std::string> token(std::int32_t id) const;

    /// The largest id that `encode` may give, those around a text included: a model needs an embedding for each from 0
    /// to this.
    std::int32_t largest_id() const;

    /// The ids that `encode` puts around a text.
    post_processor const& special_ids() const { return parts_.post_processor; }

private:
    struct shared_cache;

    void encode_segment(std::string_view text, bool at_start, std::vector<std::int32_t>& ids) const;
    void encode_pieces(pieces const& p, std::vector<std::int32_t>& ids) const;
    std::string decode_by_model(std::span<std::int32_t const> ids, bool skip_special) const;

    tokenizer_parts parts_;
    std::unique_ptr<shared_cache> cache_;
};

/// Text of tokens that come one at a time, as when they are generated. The bytes of a character wait until all of them
/// are there; joined, what `push` and `finish` return is the text of all ids, but that bytes which are never a
/// character may be another number of U+FFFD.
class text_stream {
public:
    /// Keeps a reference to the tokenizer.
    explicit text_stream(tokenizer const& t, bool skip_special = true) : tokenizer_(t), skip_special_(skip_special) {}

    /// The text that one more id gives, often none.
    std::string push(std::int32_t id);

    /// The text that waits; the stream is then as new.
    std::string finish();

private:
    std::string news(std::string const& text) const;

    tokenizer const& tokenizer_;
    bool skip_special_;
    std::vector<std::int32_t> ids_; // those of the last text that was returned, and what waits
    std::size_t returned_ = 0;      // of these ids
    std::string shown_;             // their text
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/tokenizer.ipp" // IWYU pragma: export
#endif
