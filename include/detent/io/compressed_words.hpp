// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/matrix/packed_matrix.hpp"

// Codes as compressed-tensors stores them: whole codes in words of 32 bits, or integers in bytes.

namespace detent::inline DETENT_ABI::io {

/// Codes (rows, cols), each row in whole words of `32 / bits` codes, low bits first: what `weight_packed` holds.
std::vector<std::uint8_t> words_of_codes(int bits, extents shape, std::vector<code> const& codes);

/// The codes (rows, cols) of such words. Later versions store a stream of bits without gaps instead, `dense`.
std::vector<code> codes_of_words(int bits, extents shape, std::span<std::uint8_t const> bytes, bool dense);

/// The codes of `w` as a list (out, in), inputs in their natural order.
std::vector<code> natural_codes(packed_matrix const& w);

/// The zero points of `w` as codes (out, groups).
std::vector<code> zero_codes(packed_matrix const& w);

/// Codes (rows, cols) as (cols, rows).
std::vector<code> transposed_codes(extents shape, std::vector<code> const& codes);

/// Words (rows, cols) of 32 bits as (cols, rows).
std::vector<std::uint8_t> transposed_words(extents shape, std::span<std::uint8_t const> words);

/// The same bytes with the highest of `bits` bits flipped: codes from 0 on as integers in two's complement, or back.
std::vector<std::uint8_t> signed_bytes(int bits, std::vector<code> const& codes);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/compressed_words.ipp" // IWYU pragma: export
#endif
