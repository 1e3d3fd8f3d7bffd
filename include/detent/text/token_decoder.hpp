// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"

namespace detent::inline DETENT_ABI::text {

/// Makes text from tokens: the field `decoder` of tokenizer.json. Reads the types Sequence, ByteLevel, Metaspace,
/// ByteFallback, Fuse, Strip, Replace, WordPiece and BPEDecoder.
class token_decoder {
public:
    /// Puts a space between tokens.
    token_decoder() = default;

    /// Throws `error` that names the part and what is wrong with it.
    explicit token_decoder(part const& json);

    /// The text of tokens, valid UTF-8: bytes that are not become U+FFFD. May be called by several threads.
    std::string operator()(std::vector<std::string> tokens) const;

private:
    using step = std::function<void(std::vector<std::string>&)>;

    void add(part const& json);

    std::vector<step> steps_;
    bool joins_ = false;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/token_decoder.ipp" // IWYU pragma: export
#endif
