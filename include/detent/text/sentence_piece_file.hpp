// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// What a SentencePiece `tokenizer.model` holds, for those who write it in another form; read without the library.
struct sentence_piece_file {
    /// What a token is for, with the numbers of the file.
    enum class kind { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

    struct piece {
        std::string text;
        float score = 0; ///< of BPE, the more the earlier it is merged; of Unigram its logarithm of the probability
        kind type = kind::normal;
    };

    std::vector<piece> pieces;  ///< by id
    bool is_unigram = true;     ///< else BPE
    bool adds_space = true;     ///< before a text
    bool removes_spaces = true; ///< that are more than one
    std::string charsmap;       ///< how characters are normalized, as SentencePiece compiles it
    std::int64_t unknown_id = 0, begin_id = 1, end_id = 2, padding_id = -1; ///< negative where there is none
};

/// Reads the bytes of a `tokenizer.model`. Throws `error(subject, ...)` where they are no such file.
sentence_piece_file read_sentence_piece(std::string_view bytes, std::string const& subject);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/sentence_piece_file.ipp" // IWYU pragma: export
#endif
