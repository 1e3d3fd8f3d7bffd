// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

#include "detent/core/index.hpp"
#include "detent/simd/transpose.hpp"

namespace detent::inline DETENT_ABI::simd {

/// Two nibbles from each of two bytes, as two bytes: the lower nibbles of both, and the higher ones, those of `a`
/// below. It is its own inverse. `Word` is an unsigned number or a register of them, of several bytes each.
template <class Word> struct nibble_pairs {
    Word lower;
    Word higher;

    nibble_pairs(Word a, Word b) noexcept : lower((a & low) | (b & low) << 4), higher((a >> 4 & low) | (b & ~low)) {}

private:
    static constexpr std::uint64_t low = 0x0F0F0F0F0F0F0F0F;
};

/// Puts together, byte by byte, the lower nibbles of `a` and `b`, and the higher ones; `n` bytes each. Applied to its
/// results it gives `a` and `b` again. What goes to memory is visible to other threads after `end_stream`.
inline void swap_nibbles(std::uint8_t const* a, std::uint8_t const* b, index_t n, std::uint8_t* lower,
                         std::uint8_t* higher, destination where) noexcept {
    using words = register16<std::uint64_t>;
    index_t i = 0;
    if (where == destination::memory && is_aligned(lower, 64) && is_aligned(higher, 64)) {
        alignas(64) std::uint8_t lines[2][64];
        for (; i + 64 <= n; i += 64) {
            swap_nibbles(a + i, b + i, 64, lines[0], lines[1], destination::cache);
            stream_line(lines[0], lower + i);
            stream_line(lines[1], higher + i);
        }
    }
    for (; i + 16 <= n; i += 16) {
        nibble_pairs const pairs(words::load(a + i), words::load(b + i));
        words::store(pairs.lower, lower + i);
        words::store(pairs.higher, higher + i);
    }
    for (; i < n; ++i) {
        nibble_pairs const pairs(std::uint64_t{a[i]}, std::uint64_t{b[i]});
        lower[i] = static_cast<std::uint8_t>(pairs.lower);
        higher[i] = static_cast<std::uint8_t>(pairs.higher);
    }
}

/// Reads two blocks of 32 nibbles in their natural order, 16 bytes each, and writes each so that byte j has nibble j
/// below and nibble j + 16 above.
inline void split_halves(std::uint8_t const* from, std::uint8_t* first, std::uint8_t* second) noexcept {
    using words = register16<std::uint64_t>;
    using bytes = register16<std::uint8_t>;
    auto const a = words::load(from);
    auto const b = words::load(from + 16);
    nibble_pairs const pairs(words::zip_first(a, b), words::zip_second(a, b));
    auto const lower = reinterpret_cast<bytes::type>(pairs.lower);
    auto const higher = reinterpret_cast<bytes::type>(pairs.higher);
    bytes::store(bytes::zip_first(lower, higher), first);
    bytes::store(bytes::zip_second(lower, higher), second);
}

/// Undoes `split_halves`.
inline void join_halves(std::uint8_t const* first, std::uint8_t const* second, std::uint8_t* to) noexcept {
    using words = register16<std::uint64_t>;
    using bytes = register16<std::uint8_t>;
    auto const a = bytes::load(first);
    auto const b = bytes::load(second);
    // Even bytes, then odd ones.
    auto const even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    auto const odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    nibble_pairs const pairs(reinterpret_cast<words::type>(even), reinterpret_cast<words::type>(odd));
    words::store(words::zip_first(pairs.lower, pairs.higher), to);
    words::store(words::zip_second(pairs.lower, pairs.higher), to + 16);
}

} // namespace detent::inline DETENT_ABI::simd
