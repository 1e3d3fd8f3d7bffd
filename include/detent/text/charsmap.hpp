// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// The bytes of base64 (RFC 4648, section 4). Throws `error(subject, ...)`.
std::string base64_bytes(std::string_view text, std::string const& subject);

/// The normalization that SentencePiece compiles into its models: sequences of bytes and what to put in their place.
/// The bytes are the size of a double array (Yata et al., "A compact static double-array keeping character codes"), its
/// little-endian units of 32 bits, and texts that end with a zero byte.
class charsmap {
public:
    /// Checks that no search can leave the arrays. Throws `error(subject, ...)`.
    charsmap(std::string bytes, std::string const& subject);

    /// The text with each grapheme cluster of fewer than 6 bytes, or else each of its characters, in the place of which
    /// the map has another. A cluster is looked up by the shortest beginning that the map knows, as `tokenizers` does.
    std::string apply(std::string_view text) const;

private:
    std::optional<std::string_view> find(std::string_view text) const;

    std::vector<std::uint32_t> units_;
    std::string texts_;
};

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/charsmap.ipp" // IWYU pragma: export
#endif
