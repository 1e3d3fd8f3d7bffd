// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/error.hpp"

namespace detent::inline DETENT_ABI::text {

/// Throws the error that this program was built without the libraries for Unicode.
[[noreturn]] inline void raise_no_unicode() {
    raise(error("tokenizer",
                "this program was built without PCRE2 and utf8proc (Debian: libpcre2-dev, libutf8proc-dev), "
                "which tokenizer.json, vocab.json and vocab.txt need"));
}

/// Throws the error that this program was built without SentencePiece.
[[noreturn]] inline void raise_no_sentence_piece() {
    raise(error("tokenizer", "this program was built without SentencePiece (Debian: libsentencepiece-dev), which "
                             "tokenizer.model needs"));
}

} // namespace detent::inline DETENT_ABI::text
