// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <numeric>

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"
#include "detent/simd/nearest.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Dot products of small integers, exact modulo 2^32: no instruction here saturates. A register holds words of 32 bits,
// each of 4 bytes or of 2 int16; the four or two products of a word of weights and one of activations
// are added to an int32.

namespace detent::inline DETENT_ABI::simd {

/// What a product of integers takes: bytes or int16.
template <class T>
concept SmallInteger = std::same_as<T, std::int8_t> || std::same_as<T, std::int16_t>;

/// The integers of a word.
template <SmallInteger T> inline constexpr index_t per_word = 4 / static_cast<index_t>(sizeof(T));

/// Whether one instruction multiplies registers of bytes. Elsewhere int16 are faster.
inline constexpr bool has_byte_dot =
#if (defined(__AVX512VNNI__) && defined(__AVX512BW__)) || (defined(__AVXVNNI__) && !defined(__AVX512F__)) ||          \
    (defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD))
    true;
#else
    false;
#endif

/// The smallest weight that a byte holds: weights are unsigned where the instructions have them so, and activations
/// always signed.
inline constexpr std::int32_t lowest_weight_byte =
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
    -128;
#else
    0;
#endif

#if defined(__AVX512F__) && !defined(__AVX512BW__)
/// Registers of 512 bits by instructions for 256.
template <class F> __m512i by_halves(__m512i a, __m512i b, F const& f) noexcept {
    __m256i const low = f(_mm512_castsi512_si256(a), _mm512_castsi512_si256(b));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low),
                              f(_mm512_extracti64x4_epi64(a, 1), _mm512_extracti64x4_epi64(b, 1)), 1);
}
#elif defined(__AVX__) && !defined(__AVX2__)
/// Registers of 256 bits by instructions for 128.
template <class F> __m256i by_halves(__m256i a, __m256i b, F const& f) noexcept {
    __m128i const low = f(_mm256_castsi256_si128(a), _mm256_castsi256_si128(b));
    return _mm256_insertf128_si256(_mm256_castsi128_si256(low),
                                   f(_mm256_extractf128_si256(a, 1), _mm256_extractf128_si256(b, 1)), 1);
}
#endif

/// The products of pairs of int16, summed for each word. Of -32768 alone the sum is 2^31, as it should be modulo 2^32.
inline ints pair_products(ints a, ints b) noexcept {
#if defined(__AVX512BW__)
    return ints(_mm512_madd_epi16(a, b));
#elif defined(__AVX512F__)
    return ints(by_halves(a, b, [](__m256i x, __m256i y) { return _mm256_madd_epi16(x, y); }));
#elif defined(__AVX2__)
    return ints(_mm256_madd_epi16(a, b));
#elif defined(__AVX__)
    return ints(by_halves(a, b, [](__m128i x, __m128i y) { return _mm_madd_epi16(x, y); }));
#elif defined(__SSE2__)
    return ints(_mm_madd_epi16(a, b));
#elif defined(__aarch64__)
    int16x8_t const x = vreinterpretq_s16_s32(a);
    int16x8_t const y = vreinterpretq_s16_s32(b);
    return ints(vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
#else
    ints const low = ((a << 16) >> 16) * ((b << 16) >> 16);
    return low + (a >> 16) * (b >> 16);
#endif
}

/// `sums` plus the products of words: of int16, or of bytes, those of weights from `lowest_weight_byte` on.
template <SmallInteger T> ints add_products(ints sums, ints weights, ints activations) noexcept {
    if constexpr (std::same_as<T, std::int16_t>) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
        return ints(_mm512_dpwssd_epi32(sums, weights, activations));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
        return ints(_mm256_dpwssd_avx_epi32(sums, weights, activations));
#else
        return sums + pair_products(weights, activations);
#endif
    } else {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
        return ints(_mm512_dpbusd_epi32(sums, weights, activations));
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
        return ints(_mm256_dpbusd_avx_epi32(sums, weights, activations));
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
        return ints(vdotq_s32(sums, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(activations)));
#else
        // sum w a = sum w (a + 128) - 128 sum w, on pairs of int16: bytes 0 and 2 of each word, then bytes 1 and 3.
        ints const low_bytes(0x00FF00FF);
        ints const sign_bits(0x00800080);
        ints const even = weights & low_bytes;
        ints const odd = (weights >> 8) & low_bytes;
        return sums + pair_products(even, (activations & low_bytes) ^ sign_bits) +
               pair_products(odd, ((activations >> 8) & low_bytes) ^ sign_bits) - pair_products(even + odd, sign_bits);
#endif
    }
}

/// `sums` becomes that, in its register: around the intrinsic gcc copies it, and runs out of registers for many sums.
template <SmallInteger T> void add_products_to(ints& sums, ints weights, ints activations) noexcept {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__GNUC__) && !defined(__clang__)
    __m512i words = sums;
    __m512i const w = weights;
    __m512i const a = activations;
    if constexpr (std::same_as<T, std::int16_t>) {
        asm("vpdpwssd %2, %1, %0" : "+v"(words) : "v"(w), "v"(a));
    } else {
        asm("vpdpbusd %2, %1, %0" : "+v"(words) : "v"(w), "v"(a));
    }
    sums = ints(words);
#else
    sums = add_products<T>(sums, weights, activations);
#endif
}

/// A word at any address.
inline std::int32_t load_word(void const* from) noexcept {
    std::int32_t word;
    std::memcpy(&word, from, sizeof word);
    return word;
}

/// A register of words at any address.
inline ints load_words(void const* from) noexcept {
    return ints::load_unaligned(static_cast<std::int32_t const*>(from));
}

/// The first `n` integers at any address, fewer than a register has, and zeros after them.
template <SmallInteger T> ints load_part(T const* from, index_t n) noexcept {
#if defined(__AVX512BW__)
    auto const bytes = static_cast<unsigned>(n * static_cast<index_t>(sizeof(T)));
    return ints(_mm512_maskz_loadu_epi8((__mmask64{1} << bytes) - 1, from));
#else
    alignas(64) T part[lanes * per_word<T>] = {};
    std::memcpy(part, from, static_cast<std::size_t>(n) * sizeof(T));
    return load_words(part);
#endif
}

/// Lane 4 q + r is the sum of lanes 4 q to 4 q + 3 of the r-th of four registers.
inline ints sums_in_quads(ints const* v) noexcept {
#if defined(__AVX512F__)
    auto const pairs = [](__m512i a, __m512i b) {
        return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    };
    __m512i const low = pairs(v[0], v[1]);
    __m512i const high = pairs(v[2], v[3]);
    return ints(_mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high)));
#elif defined(__AVX2__)
    return ints(_mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3])));
#elif defined(__SSE2__) && !defined(__AVX__)
    auto const pairs = [](__m128i a, __m128i b) {
        return _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
    };
    __m128i const low = pairs(v[0], v[1]);
    __m128i const high = pairs(v[2], v[3]);
    return ints(_mm_add_epi32(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high)));
#elif defined(__aarch64__)
    return ints(vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])));
#else
    alignas(64) std::int32_t quads[lanes];
    for (index_t r = 0; r < 4; ++r) {
        alignas(64) std::int32_t lane[lanes];
        v[r].store_aligned(lane);
        for (index_t q = 0; q < lanes; q += 4) {
            quads[q + r] = std::accumulate(lane + q, lane + q + 4, std::int32_t{0});
        }
    }
    return ints::load_aligned(quads);
#endif
}

/// The sums of all lanes of four registers.
inline void sums_of_four(ints const* v, std::int32_t* sums) noexcept {
    ints const quads = sums_in_quads(v);
#if defined(__AVX2__)
#if defined(__AVX512F__)
    __m256i const half = _mm256_add_epi32(_mm512_castsi512_si256(quads), _mm512_extracti64x4_epi64(quads, 1));
#else
    __m256i const half = quads;
#endif
    __m128i const total = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), total);
#else
    alignas(64) std::int32_t lane[lanes];
    quads.store_aligned(lane);
    std::copy_n(lane, 4, sums);
    for (index_t l = 4; l < lanes; ++l) {
        sums[l % 4] += lane[l];
    }
#endif
}

/// sums[r] = <weights[r], activations> modulo 2^32 for four rows of weights, `stride` integers apart, of `n` integers.
/// Of weights a whole register may be read after the last.
template <SmallInteger T>
void dot_four_rows(T const* weights, index_t stride, T const* activations, index_t n, std::int32_t* sums) noexcept {
    constexpr index_t width = lanes * per_word<T>;
    ints total[4] = {ints(0), ints(0), ints(0), ints(0)};
    auto const add = [&](index_t i, ints a) {
        for (index_t r = 0; r < 4; ++r) {
            total[r] = add_products<T>(total[r], load_words(weights + r * stride + i), a);
        }
    };
    index_t i = 0;
    for (; i + width <= n; i += width) {
        add(i, load_words(activations + i));
    }
    if (i < n) {
        add(i, load_part(activations + i, n - i));
    }
    sums_of_four(total, sums);
}

/// Writes `n` words of each of four rows, `stride` words apart, word by word: the k-th of all rows to `out + k *
/// out_stride`.
inline void interleave_four_rows(std::int32_t const* rows, index_t stride, index_t n, std::int32_t* out,
                                 index_t out_stride) noexcept {
    index_t k = 0;
#if defined(__SSE2__)
    auto const row = [&](index_t r) {
        return _mm_loadu_si128(reinterpret_cast<__m128i const*>(rows + r * stride + k));
    };
    auto const put = [&](index_t word, __m128i values) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (k + word) * out_stride), values);
    };
    for (; k + 4 <= n; k += 4) {
        __m128i const low01 = _mm_unpacklo_epi32(row(0), row(1));
        __m128i const low23 = _mm_unpacklo_epi32(row(2), row(3));
        __m128i const high01 = _mm_unpackhi_epi32(row(0), row(1));
        __m128i const high23 = _mm_unpackhi_epi32(row(2), row(3));
        put(0, _mm_unpacklo_epi64(low01, low23));
        put(1, _mm_unpackhi_epi64(low01, low23));
        put(2, _mm_unpacklo_epi64(high01, high23));
        put(3, _mm_unpackhi_epi64(high01, high23));
    }
#endif
    for (; k < n; ++k) {
        for (index_t r = 0; r < 4; ++r) {
            out[k * out_stride + r] = rows[r * stride + k];
        }
    }
}

} // namespace detent::inline DETENT_ABI::simd
