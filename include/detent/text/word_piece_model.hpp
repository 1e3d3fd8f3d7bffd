// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"
#include "detent/text/token_model.hpp"

namespace detent::inline DETENT_ABI::text {

/// BERT's model: from left to right the longest token that the rest of a piece begins with; tokens that do not begin a
/// piece have a prefix. A piece for which that fails is unknown as a whole.
class word_piece_model final : public vocabulary_model {
public:
    /// Reads the model of type WordPiece.
    explicit word_piece_model(part const& json);

    void encode(std::string_view piece, std::vector<std::int32_t>& ids) const override;

private:
    std::int32_t unknown_;
    std::string prefix_;
    std::size_t longest_piece_;     // characters
    std::size_t longest_token_ = 0; // bytes
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/word_piece_model.ipp" // IWYU pragma: export
#endif
