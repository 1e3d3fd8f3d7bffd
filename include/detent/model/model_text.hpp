// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/core/index.hpp"
#include "detent/model/configuration.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/text/tokenizer.hpp"

namespace detent::inline DETENT_ABI {

/// Text as a model reads and writes it. Where the model has a tokenizer, text goes through that; without one, the
/// tokens of a model of 256 are bytes, and any other model has token ids only. The tokenizer is read when it is first
/// needed, so one object serves one thread at a time.
class model_text {
public:
    /// Of the model with configuration `c`, whose tokenizer is in the directory or file `source`, which may be one of
    /// GGUF, or nowhere.
    model_text(std::filesystem::path source, model_configuration const& c);

    /// Whether the model has text at all, and not only token ids.
    bool has_text() const { return tokenized_ || bytes_; }

    /// The ids of files, one after the other: little-endian ids of 16 or 32 bits of `*.u16` and `*.u32`; of `*.jsonl`
    /// each line's field `text`; of any other file all of it. Every text has the special tokens around it that the
    /// tokenizer adds; where it adds none, texts after the first begin with the model's first end-of-text token, if it
    /// has one. Bytes have nothing between texts. @throws error naming the file: of text that the model has not, and of
    /// an id beyond the vocabulary.
    std::vector<nn::token_id> read(std::span<std::filesystem::path const> files) const;

    /// The ids that a model is to continue, with the special tokens that belong before a text, not those behind it. An
    /// empty prompt is the token that begins a text. @throws error when the model has no text, no such token, or not
    /// all of these ids.
    std::vector<nn::token_id> prompt(std::string_view text) const;

    /// @throws error naming `ids` when one is not in the vocabulary.
    void expect_in_vocabulary(std::span<nn::token_id const> ids, std::string const& name) const;

private:
    friend class token_writer;

    bool is_gguf() const { return source_.extension() == ".gguf"; }
    text::tokenizer const& tokenizer() const;
    std::vector<nn::token_id> encode(std::string_view text, std::string const& name) const;

    std::filesystem::path source_;
    bool tokenized_ = false;
    bool bytes_ = false;
    index_t vocabulary_ = 0;
    std::optional<index_t> begin_;
    std::optional<index_t> end_;
    mutable std::unique_ptr<text::tokenizer const> tokenizer_;
};

/// Writes the tokens that a model makes one after the other: as text, whole characters at a time, or, where the model
/// has no text, as numbers with spaces between them.
class token_writer {
public:
    /// Keeps a reference to what it is made of.
    explicit token_writer(model_text const& text);

    /// What one more token adds, often nothing.
    std::string push(nn::token_id id);

    /// What waits for the rest of a character.
    std::string finish() { return stream_ ? stream_->finish() : std::string(); }

private:
    bool bytes_;
    std::optional<text::text_stream> stream_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/model_text.ipp" // IWYU pragma: export
#endif
