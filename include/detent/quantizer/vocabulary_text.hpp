// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <string>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::vocabulary {

struct word;

/// What there is to say of a word: what it means, and what it needs.
std::string explanation(word const& w);

/// `text` in lines of at most `width` characters where its words allow it, all but the first indented; `line` is how
/// the first begins.
std::string wrapped(std::string line, std::string const& text, std::size_t indent, std::size_t width);

/// All words for a terminal: an example of each and its explanation, in lines of at most `width` characters.
std::string plain_text(std::size_t width = 100);

/// docs/specification.md, which tells all words.
std::string markdown();

} // namespace detent::inline DETENT_ABI::vocabulary

#if !defined(DETENT_COMPILED)
#include "detent/quantizer/vocabulary_text.ipp" // IWYU pragma: export
#endif
