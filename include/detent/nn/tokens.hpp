// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI::nn {

/// A position in the vocabulary.
using token_id = std::int32_t;

/// Which token each row of a (token, feature) matrix is: `sequences` of equal length stacked one below the other, the
/// first token of each at position `start` (above 0 when earlier tokens are in a key-value cache).
struct token_rows {
    index_t sequences = 1;
    index_t start = 0;

    /// Tokens of one sequence in a matrix of `rows` rows.
    index_t length(index_t rows) const {
        expect_valid(sequences > 0 && rows % sequences == 0, "tokens", "are not of whole sequences");
        return rows / sequences;
    }
};

/// Rows that one piece of a loop over tokens takes, where the work of a row is a pass over its features.
inline constexpr index_t rows_per_piece = 64;

} // namespace detent::inline DETENT_ABI::nn
