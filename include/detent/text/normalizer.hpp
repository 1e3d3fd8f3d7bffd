// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "detent/core/abi.hpp"
#include "detent/text/part.hpp"

namespace detent::inline DETENT_ABI::text {

/// What a tokenizer does to text before it is split: the field `normalizer` of tokenizer.json. Reads the types
/// Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Replace, Prepend, Strip, Nmt, ByteLevel and
/// Precompiled.
class normalizer {
public:
    /// Leaves text as it is.
    normalizer() = default;

    /// Throws `error` that names the part and what is wrong with it.
    explicit normalizer(part const& json);

    /// Whether it leaves all text as it is.
    bool empty() const { return steps_.empty(); }

    /// The normalized text; `text` is valid UTF-8. May be called by several threads. Throws `error` where a text
    /// becomes longer than 64 times itself and a MiB.
    std::string operator()(std::string text) const;

private:
    using step = std::function<std::string(std::string)>;

    void add(part const& json);

    std::vector<step> steps_;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/normalizer.ipp" // IWYU pragma: export
#endif
