// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/part.hpp"
#include "detent/text/vocabulary.hpp"

namespace detent::inline DETENT_ABI::text {

/// Turns a piece of text into token ids: what tokenizer.json calls the model. May be called by several threads.
class token_model {
public:
    token_model() = default;
    token_model(token_model const&) = delete;
    token_model& operator=(token_model const&) = delete;
    virtual ~token_model() = default;

    /// Appends the ids of a piece, which is valid UTF-8 and not empty.
    virtual void encode(std::string_view piece, std::vector<std::int32_t>& ids) const = 0;

    virtual std::optional<std::int32_t> id(std::string_view token) const = 0;
    virtual std::optional<std::string> token(std::int32_t id) const = 0;

    /// The largest id, -1 without tokens.
    virtual std::int32_t largest_id() const = 0;

    /// The text of ids, by a model that knows; else nothing, and the text is made from tokens (`token_decoder`).
    virtual std::optional<std::string> decode(std::span<std::int32_t const>) const { return std::nullopt; }
};

/// A model that has its tokens in a `vocabulary`.
class vocabulary_model : public token_model {
public:
    explicit vocabulary_model(vocabulary tokens) : tokens_(std::move(tokens)) {}

    std::optional<std::int32_t> id(std::string_view token) const override { return tokens_.id(token); }
    std::optional<std::string> token(std::int32_t id) const override {
        auto const* found = tokens_.token(id);
        return found != nullptr ? std::optional(*found) : std::nullopt;
    }
    std::int32_t largest_id() const override { return tokens_.largest(); }

protected:
    vocabulary const& tokens() const { return tokens_; }

private:
    vocabulary tokens_;
};

/// The field `vocab`, an object of ids by token.
vocabulary read_vocabulary(part const& json);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/text/token_model.ipp" // IWYU pragma: export
#endif
