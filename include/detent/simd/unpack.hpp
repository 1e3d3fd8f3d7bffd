// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "detent/core/index.hpp"

#if defined(__BMI2__) && defined(__x86_64__)
#include <immintrin.h>
#endif

namespace detent::inline DETENT_ABI::simd {

static_assert(std::endian::native == std::endian::little, "codes are read as little-endian words");

/// The lowest `Bits` bits of every byte.
template <int Bits> inline constexpr std::uint64_t low_bits = 0x0101010101010101U * ((1U << Bits) - 1);

/// Spreads the first eight `Bits`-wide fields of `word` over its eight bytes.
template <int Bits> std::uint64_t spread(std::uint64_t word) noexcept {
#if defined(__BMI2__) && defined(__x86_64__)
    return _pdep_u64(word, low_bits<Bits>);
#else
    // Halve three times: 8 fields -> 2 x 4 -> 4 x 2 -> 8 x 1.
    word = (word & ((std::uint64_t{1} << (4 * Bits)) - 1)) | (word >> (4 * Bits) << 32);
    constexpr std::uint64_t pairs = ((std::uint64_t{1} << (2 * Bits)) - 1) * 0x0000000100000001U;
    word = (word & pairs) | ((word >> (2 * Bits)) & pairs) << 16;
    constexpr std::uint64_t singles = ((std::uint64_t{1} << Bits) - 1) * 0x0001000100010001U;
    return (word & singles) | ((word >> Bits) & singles) << 8;
#endif
}

/// Puts eight codes of a byte each, below 2^Bits, one after the other into the lowest bits.
template <int Bits> std::uint64_t squeeze(std::uint64_t codes) noexcept {
#if defined(__BMI2__) && defined(__x86_64__)
    return _pext_u64(codes, low_bits<Bits>);
#else
    codes = (codes & 0x00FF00FF00FF00FF) | (codes & 0xFF00FF00FF00FF00) >> (8 - Bits);
    codes = (codes & 0x0000FFFF0000FFFF) | (codes & 0xFFFF0000FFFF0000) >> (16 - 2 * Bits);
    return (codes & 0xFFFFFFFF) | codes >> 32 << (4 * Bits);
#endif
}

/// Reads `n` codes of a little-endian bit stream. May read up to 8 bytes past the last code.
template <int Bits> void unpack(std::uint8_t const* bytes, index_t n, code* codes) noexcept {
    index_t i = 0;
    for (; i + 8 <= n; i += 8, bytes += Bits) {
        std::uint64_t word;
        std::memcpy(&word, bytes, 8);
        word = spread<Bits>(word);
        std::memcpy(codes + i, &word, 8);
    }
    if (i < n) {
        std::uint64_t word;
        std::memcpy(&word, bytes, 8);
        word = spread<Bits>(word);
        std::memcpy(codes + i, &word, static_cast<std::size_t>(n - i));
    }
}

} // namespace detent::inline DETENT_ABI::simd
