// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/core/index.hpp"
#include "detent/simd/unpack.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSSE3__)
#include <tmmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace detent::inline DETENT_ABI::simd {

/// A table of the bytes of 2^bits codes, repeated to 256.
struct byte_table {
    alignas(64) std::uint8_t bytes[256];

    template <class F> byte_table(int bits, F const& byte_of) noexcept {
        for (int c = 0; c < 256; ++c) {
            bytes[c] = byte_of(static_cast<code>(c & ((1 << bits) - 1)));
        }
    }
};

/// How many bytes an instruction, or a few, look up in the table of `Bits` bits: up to 4 bits, with AVX-512 VBMI up to
/// 8; 1 where there is none.
template <int Bits>
inline constexpr index_t bytes_at_once =
#if defined(__AVX512VBMI__)
    64;
#elif defined(__AVX512BW__)
    Bits <= 4 ? 64 : 1;
#elif defined(__AVX2__)
    Bits <= 4 ? 32 : 1;
#elif defined(__SSSE3__) || defined(__aarch64__)
    Bits <= 4 ? 16 : 1;
#else
    1;
#endif

#if defined(__AVX512BW__)
/// The bytes of a register of codes; up to 4 bits, bits 4 to 6 of a code do not matter.
template <int Bits>
    requires(bytes_at_once<Bits> == 64)
__m512i look_up(byte_table const& table, __m512i codes) noexcept {
    __m512i const low = _mm512_load_si512(table.bytes);
    if constexpr (Bits <= 4) {
        return _mm512_shuffle_epi8(low, codes);
    }
#if defined(__AVX512VBMI__)
    else if constexpr (Bits <= 6) {
        return _mm512_permutexvar_epi8(codes, low);
    } else {
        auto const at = [&](int i) { return _mm512_load_si512(table.bytes + i); };
        __m512i const found = _mm512_permutex2var_epi8(low, codes, at(64));
        if constexpr (Bits == 7) {
            return found;
        } else {
            __m512i const upper = _mm512_permutex2var_epi8(at(128), codes, at(192));
            return _mm512_mask_mov_epi8(found, _mm512_movepi8_mask(codes), upper);
        }
    }
#endif
}
#endif

/// Writes `bytes_at_once<Bits>` bytes of the table for codes below 2^Bits.
template <int Bits> void look_up(byte_table const& table, code const* codes, std::uint8_t* out) noexcept {
    if constexpr (bytes_at_once<Bits> == 1) {
        *out = table.bytes[*codes];
    } else {
#if defined(__AVX512BW__)
        _mm512_storeu_si512(out, look_up<Bits>(table, _mm512_loadu_si512(codes)));
#elif defined(__AVX2__)
        auto const low = _mm256_load_si256(reinterpret_cast<__m256i const*>(table.bytes));
        auto const c = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(codes));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_shuffle_epi8(low, c));
#elif defined(__SSSE3__)
        auto const low = _mm_load_si128(reinterpret_cast<__m128i const*>(table.bytes));
        auto const c = _mm_loadu_si128(reinterpret_cast<__m128i const*>(codes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(low, c));
#elif defined(__aarch64__)
        vst1q_u8(out, vqtbl1q_u8(vld1q_u8(table.bytes), vld1q_u8(codes)));
#endif
    }
}

/// `out[i] = table[codes[i]]` for `n` codes below 2^Bits.
template <int Bits> void lookup(byte_table const& table, code const* codes, index_t n, std::uint8_t* out) noexcept {
    constexpr index_t width = bytes_at_once<Bits>;
    index_t i = 0;
    for (; i + width <= n; i += width) {
        look_up<Bits>(table, codes + i, out + i);
    }
    if (i < n) {
        code rest[array_size(width)] = {};
        std::uint8_t found[array_size(width)];
        std::memcpy(rest, codes + i, static_cast<std::size_t>(n - i));
        look_up<Bits>(table, rest, found);
        std::memcpy(out + i, found, static_cast<std::size_t>(n - i));
    }
}

#if defined(__AVX512VBMI__)
/// Where the eight bytes of each word come from that the stream of 64 codes is cut into, so that a word holds 8 codes.
template <int Bits> __m512i bytes_of_words() noexcept {
    alignas(64) std::uint8_t from[64];
    for (int i = 0; i < 64; ++i) {
        from[i] = static_cast<std::uint8_t>(i / 8 * Bits + i % 8);
    }
    return _mm512_load_si512(from);
}

/// At which bit of a word its codes begin.
template <int Bits> __m512i bits_of_codes(int first) noexcept {
    alignas(64) std::uint8_t bits[64];
    for (int i = 0; i < 64; ++i) {
        bits[i] = static_cast<std::uint8_t>(first + i % 8 * Bits);
    }
    return _mm512_load_si512(bits);
}
#endif

/// `out[i] = table[c]` for codes c = `begin` .. `begin + n - 1` of a little-endian bit stream, n <= 512. May read 64
/// bytes from that of the last code on.
template <int Bits>
void decode(byte_table const& table, std::uint8_t const* stream, index_t begin, index_t n,
            std::uint8_t* out) noexcept {
    index_t i = 0;
#if defined(__AVX2__)
    if constexpr (Bits == 4) {
        if (begin % 2 == 0) { // each byte as the lower and the upper half of a word
            std::uint8_t const* const bytes = stream + begin / 2;
#if defined(__AVX512BW__)
            __m512i const table_bytes = _mm512_load_si512(table.bytes);
            for (; i + 64 <= n; i += 64) {
                __m512i const b = _mm512_cvtepu8_epi16(
                    _mm256_loadu_si256(reinterpret_cast<__m256i const*>(bytes + i / 2)));
                __m512i const codes = _mm512_and_si512(_mm512_or_si512(b, _mm512_slli_epi16(b, 4)),
                                                       _mm512_set1_epi8(15));
                _mm512_storeu_si512(out + i, _mm512_shuffle_epi8(table_bytes, codes));
            }
#else
            auto const table_bytes = _mm256_load_si256(reinterpret_cast<__m256i const*>(table.bytes));
            for (; i + 32 <= n; i += 32) {
                __m256i const b =
                    _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<__m128i const*>(bytes + i / 2)));
                __m256i const codes = _mm256_and_si256(_mm256_or_si256(b, _mm256_slli_epi16(b, 4)),
                                                       _mm256_set1_epi8(15));
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_shuffle_epi8(table_bytes, codes));
            }
#endif
            if (i == n) {
                return;
            }
        }
    }
#endif
#if defined(__AVX512VBMI__)
    std::uint8_t const* bytes = stream + (begin + i) * Bits / 8;
    auto const first_bit = static_cast<int>((begin + i) * Bits % 8);
    auto const next = [bits = bits_of_codes<Bits>(first_bit), words = bytes_of_words<Bits>(), &bytes, &table] {
        __m512i const codes =
            _mm512_multishift_epi64_epi8(bits, _mm512_permutexvar_epi8(words, _mm512_loadu_si512(bytes)));
        bytes += 8 * Bits;
        if constexpr (Bits <= 6) { // the table repeats: the bits above do not matter
            return _mm512_permutexvar_epi8(codes, _mm512_load_si512(table.bytes));
        } else {
            return look_up<Bits>(table, codes);
        }
    };
    for (; i + 64 <= n; i += 64) {
        _mm512_storeu_si512(out + i, next());
    }
    if (i < n) {
        _mm512_mask_storeu_epi8(out + i, (__mmask64{1} << (n - i)) - 1, next());
    }
#else
    code codes[512 + 8];
    index_t const skipped = (begin + i) % 8;
    unpack<Bits>(stream + (begin + i) / 8 * Bits, n - i + skipped, codes);
    lookup<Bits>(table, codes + skipped, n - i, out + i);
#endif
}

} // namespace detent::inline DETENT_ABI::simd
