// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <bit>
#include <cstdint>

#include "detent/core/index.hpp"
#include "detent/simd/code_lanes.hpp"
#include "detent/simd/integer_dot.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSSE3__)
#include <tmmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// Tables whose numbers are bytes or bfloat16, so that an instruction looks up several in each lane and another adds
// their products with as many inputs.

namespace detent::inline DETENT_ABI::simd {

/// The same number, in a register from here on: compilers else load it again for each instruction that takes it.
inline ints in_register(ints v) noexcept {
#if defined(__AVX512F__)
    __m512i words = v;
    asm("" : "+v"(words));
    return ints(words);
#else
    return v;
#endif
}

/// Four weights as bytes in each lane.
struct byte_weights {
    ints words;
};

/// Whether registers of bytes can be looked up and multiplied with signed ones, and the span of bytes, largest less
/// smallest, up to which that is exact. Instructions that add products in 16 bits hold 4 * 63 * 128.
inline constexpr std::int32_t widest_byte_span =
#if (defined(__AVX512VNNI__) && defined(__AVX512BW__)) || (defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD))
    255;
#elif defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__)) || (defined(__SSSE3__) && !defined(__AVX__))
    63;
#else
    -1; // no instructions
#endif

/// `sums` plus the products of four weights and four inputs of a byte, and of four more, in each lane; weights are
/// stored from `lowest_weight_byte` on and span at most `widest_byte_span`.
inline ints add_products(ints sums, byte_weights first, ints of_first, byte_weights second, ints of_second) noexcept {
#if defined(__AVX512BW__) && !defined(__AVX512VNNI__)
    __m512i const pairs = _mm512_add_epi16(_mm512_maddubs_epi16(first.words, of_first),
                                           _mm512_maddubs_epi16(second.words, of_second));
    return sums + ints(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(__AVXVNNI__)
    __m256i const pairs = _mm256_add_epi16(_mm256_maddubs_epi16(first.words, of_first),
                                           _mm256_maddubs_epi16(second.words, of_second));
    return sums + ints(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#elif defined(__SSSE3__) && !defined(__AVX__)
    __m128i const pairs =
        _mm_add_epi16(_mm_maddubs_epi16(first.words, of_first), _mm_maddubs_epi16(second.words, of_second));
    return sums + ints(_mm_madd_epi16(pairs, _mm_set1_epi16(1)));
#else
    ints const half = add_products<std::int8_t>(sums, first.words, of_first);
    return add_products<std::int8_t>(half, second.words, of_second);
#endif
}

/// A table of a byte for each code: the first of two steps looks up four in each lane, `second` the others.
struct table_of_bytes {
    static constexpr int codes_per_step = 4;
    static constexpr int bits_to_next(int) { return 0; }
    static constexpr bool one_scale_only = false;
    /// Of how many bytes an input is, the highest first.
    static constexpr int input_bytes = 1;
    static constexpr index_t column(index_t step, index_t i) { return 4 * step + i; }
};

/// The same table for inputs of three bytes.
template <class Table> struct for_wide_inputs : Table {
    static constexpr int input_bytes = 3;
    /// The largest size of a number whose products with eight inputs are summed in 32 bits.
    static constexpr std::int32_t largest_number = 32;
    /// Whether products with the first bytes are summed apart, as numbers may be larger.
    static constexpr bool two_sums = Table::most_bits > 4;
};

/// Bytes for codes of 4 bits. The first step takes the even codes of a lane, the second the odd ones.
class nibble_bytes : public table_of_bytes {
public:
    static constexpr int fewest_bits = 4;
    static constexpr int most_bits = 4;
    static constexpr bool exists = widest_byte_span > 0;
    static constexpr index_t column(index_t step, index_t i) { return 2 * i + step; }

    /// `bytes` has 16.
    nibble_bytes(std::uint8_t const* bytes, int) noexcept {
        alignas(64) std::uint8_t repeated[4 * lanes];
        for (index_t i = 0; i < 4 * lanes; ++i) {
            repeated[i] = bytes[i % 16];
        }
        table_ = ints::load_aligned(reinterpret_cast<std::int32_t const*>(repeated));
    }

    byte_weights operator()(ints codes) const noexcept {
#if defined(__AVX512VBMI__)
        return {ints(_mm512_permutexvar_epi8(codes, table_))}; // it repeats: the two bits above a code do not matter
#else
        [[maybe_unused]] ints const nibbles = codes & ints(0x0F0F0F0F);
#if defined(__AVX512BW__)
        return {ints(_mm512_shuffle_epi8(table_, nibbles))};
#elif defined(__AVX2__) && !defined(__AVX512F__)
        return {ints(_mm256_shuffle_epi8(table_, nibbles))};
#elif defined(__SSSE3__) && !defined(__AVX__)
        return {ints(_mm_shuffle_epi8(table_, nibbles))};
#elif defined(__aarch64__)
        return {ints(vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(table_), vreinterpretq_u8_s32(nibbles))))};
#else
        return {nibbles};
#endif
#endif
    }
    byte_weights second(ints codes) const noexcept { return (*this)(codes >> 4); }

private:
    ints table_;
};

#if defined(__AVX512VBMI__)
/// The codes of a register that begin at every `bits`-th bit of each lane from the `first`-th on, `N` to a lane: each
/// in the lowest bits of a byte if N is 4, of 16 bits if it is 2.
template <int N> class apart {
public:
    explicit apart(int bits, int first = 0) noexcept {
        alignas(64) std::uint8_t begins[64];
        for (int i = 0; i < 64; ++i) {
            begins[i] = static_cast<std::uint8_t>(i % 8 / 4 * 32 + first + i % 4 * N / 4 * bits);
        }
        begins_ = _mm512_load_si512(begins);
    }
    __m512i operator()(ints codes) const noexcept { return _mm512_multishift_epi64_epi8(begins_, codes); }

private:
    __m512i begins_;
};

/// Bytes for codes of up to 6 bits.
template <int Fewest, int Most> class bytes_in_register : public table_of_bytes {
public:
    static constexpr int fewest_bits = Fewest;
    static constexpr int most_bits = Most;

    /// `bytes` has 2^bits.
    bytes_in_register(std::uint8_t const* bytes, int bits) noexcept
        : first_(bits), second_(bits, Most <= 4 ? 4 * bits : 0) {
        alignas(64) std::uint8_t repeated[64]; // so that no bit above the code's matters
        for (int i = 0; i < 64; ++i) {
            repeated[i] = bytes[i % (1 << bits)];
        }
        table_ = _mm512_load_si512(repeated);
    }

    byte_weights operator()(ints codes) const noexcept {
        return {ints(_mm512_permutexvar_epi8(first_(codes), table_))};
    }
    byte_weights second(ints codes) const noexcept {
        return {ints(_mm512_permutexvar_epi8(second_(codes), table_))};
    }

private:
    apart<4> first_;
    apart<4> second_; // of the same register, or of the second one
    __m512i table_;
};

/// Codes of 8 bits that are the bytes themselves.
class codes_as_bytes : public table_of_bytes {
public:
    static constexpr int fewest_bits = 8;
    static constexpr int most_bits = 8;

    byte_weights operator()(ints codes) const noexcept { return {codes}; }
    byte_weights second(ints codes) const noexcept { return {codes}; }
};
#endif

#if defined(__AVX512VBMI__) && defined(__AVX512BF16__)
/// Two weights as bfloat16 in each lane.
struct bfloat_weights {
    __m512i pairs;
};

/// `sums` plus the products of pairs of bfloat16, each lane's rounded as the instruction does: products exact, sums to
/// float.
inline floats add_products(floats sums, bfloat_weights weights, floats inputs) noexcept {
    return floats(_mm512_dpbf16_ps(sums, std::bit_cast<__m512bh>(weights.pairs),
                                   std::bit_cast<__m512bh>(static_cast<__m512>(inputs))));
}

/// The numbers of codes of up to 4 bits as bfloat16.
class bfloats_in_register {
public:
    static constexpr int fewest_bits = 1;
    static constexpr int most_bits = 4;
    static constexpr int codes_per_step = 2;
    static constexpr bool one_scale_only = true;
    static constexpr int bits_to_next(int bits) { return 2 * bits; }
    static constexpr index_t column(index_t step, index_t i) { return 2 * step + i; }

    bfloats_in_register(float const* table, int bits) noexcept : apart_(bits) {
        alignas(64) float repeated[16]; // so that no bit above the code's matters
        for (int i = 0; i < 16; ++i) {
            repeated[i] = table[i % (1 << bits)];
        }
        numbers_ = floats::load_aligned(repeated);
    }

    /// The table of (number - zero) * scale, rounded, of use while this one lives.
    auto scaled(floats zero, floats scale) const noexcept {
        auto const rounded = std::bit_cast<__m256i>(_mm512_cvtneps_pbh((numbers_ - zero) * scale));
        // Twice, as the fifth bit of an index is not the code's.
        return [this, numbers = _mm512_broadcast_i64x4(rounded)](ints codes) {
            return bfloat_weights{_mm512_permutexvar_epi16(apart_(codes), numbers)};
        };
    }
    bfloat_weights operator()(ints codes) const noexcept { return scaled(floats(0.0F), floats(1.0F))(codes); }

private:
    apart<2> apart_;
    floats numbers_;
};
#endif

} // namespace detent::inline DETENT_ABI::simd
