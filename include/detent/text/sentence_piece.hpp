// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/token_model.hpp"

namespace detent::inline DETENT_ABI::text {

/// The model of a tokenizer.model, by the library SentencePiece, whose ids and text are then exactly its own. Without
/// the macro DETENT_SENTENCEPIECE, which CMake defines where it finds the library, the constructor throws an `error`
/// that says so.
class sentence_piece_model final : public token_model {
public:
    /// Takes the bytes of the file. Throws `error(subject, ...)` where SentencePiece refuses them, or where its search
    /// for normalized text would leave the file (`charsmap`).
    sentence_piece_model(std::string const& bytes, std::string subject);

    void encode(std::string_view piece, std::vector<std::int32_t>& ids) const override;
    std::optional<std::int32_t> id(std::string_view token) const override;
    std::optional<std::string> token(std::int32_t id) const override;
    std::int32_t largest_id() const override;
    std::optional<std::string> decode(std::span<std::int32_t const> ids) const override;

    /// The tokens that begin and end a text, nothing where the model has none.
    std::optional<std::int32_t> begin_id() const;
    std::optional<std::int32_t> end_id() const;

private:
    std::shared_ptr<void const> processor_;
    std::string subject_;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/sentence_piece.ipp" // IWYU pragma: export
#endif
