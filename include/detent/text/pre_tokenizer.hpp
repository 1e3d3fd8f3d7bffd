// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"

namespace detent::inline DETENT_ABI::text {

/// Text that is cut into pieces, which are in order and do not overlap; what lies between them is dropped.
struct pieces {
    struct piece {
        std::size_t begin;
        std::size_t end;
    };

    std::string text;
    std::vector<piece> list;
    bool at_start = true; ///< Whether the first piece begins where all the text of a call begins.

    std::string_view operator[](std::size_t i) const {
        return std::string_view(text).substr(list[i].begin, list[i].end - list[i].begin);
    }
};

/// What becomes of a match of what text is split at: `SplitDelimiterBehavior` of `tokenizers`.
enum class split_behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Cuts text into the pieces that a model sees one at a time: the field `pre_tokenizer` of tokenizer.json. Reads the
/// types Sequence, ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace, BertPreTokenizer and
/// CharDelimiterSplit.
class pre_tokenizer {
public:
    /// Leaves text in one piece.
    pre_tokenizer() = default;

    /// Throws `error` that names the part and what is wrong with it.
    explicit pre_tokenizer(part const& json);

    /// Cuts `text`, which is valid UTF-8, into pieces; none is empty. May be called by several threads.
    pieces operator()(std::string text, bool at_start) const;

    /// Whether the model is to see the characters that stand for the bytes of a piece instead of the piece
    /// (`byte_characters`). It is the last thing that a ByteLevel does, which can wait until a piece is new to the
    /// model.
    bool gives_bytes() const { return gives_bytes_; }

private:
    using step = std::function<void(pieces&)>;

    void add(part const& json);
    void add_split(part const& json);
    void add_byte_level(part const& json);
    void add_metaspace(part const& json);

    std::vector<step> steps_;
    bool gives_bytes_ = false;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/pre_tokenizer.ipp" // IWYU pragma: export
#endif
