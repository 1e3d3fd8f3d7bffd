// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"
#include "detent/simd/lookup.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

// Weights to the nearest of a set of numbers, a register at a time. A set answers `in_registers()`, an object that is
// called with y = weight / scale, the zero point, and a place for the codes, and returns the numbers: those codes
// decoded. Every operation is that of the scalar `encode` and `decode` on the same values, so all bits are the same.

namespace detent::inline DETENT_ABI::simd {

using floats = xsimd::batch<float>;
using ints = xsimd::batch<std::int32_t>;
inline constexpr auto lanes = static_cast<index_t>(floats::size);

/// The place of `x` among all floats: ordinal(a) < ordinal(b) if a < b, and -0 comes right before +0.
constexpr std::int32_t ordinal(float x) noexcept {
    auto const bits = std::bit_cast<std::int32_t>(x);
    return bits ^ ((bits >> 31) & 0x7FFFFFFF);
}

/// The float at that place.
constexpr float float_at(std::int32_t ordinal) noexcept {
    return std::bit_cast<float>(ordinal ^ ((ordinal >> 31) & 0x7FFFFFFF));
}

inline ints ordinal(floats x) noexcept {
    ints const bits = std::bit_cast<ints>(x);
    return bits ^ ((bits >> 31) & ints(0x7FFFFFFF));
}

/// Writes a register of integers below 256 as codes.
inline void store_codes(ints from, code* codes) noexcept {
#if defined(__AVX512F__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(from));
#elif defined(__AVX2__)
    __m128i const words = _mm_packs_epi32(_mm256_castsi256_si128(from), _mm256_extracti128_si256(from, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm_packus_epi16(words, words));
#elif defined(__SSE2__) && !defined(__AVX__)
    __m128i const words = _mm_packs_epi32(from, from);
    int const bytes = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(codes, &bytes, sizeof bytes);
#else
    alignas(64) std::int32_t values[lanes];
    from.store_aligned(values);
    std::copy(values, values + lanes, codes);
#endif
}

/// `n + 1` where `yes`, `n` elsewhere.
template <class Mask> ints one_more(ints n, Mask yes) noexcept {
    if constexpr (sizeof yes == sizeof n) { // -1 where it holds
        return n - std::bit_cast<ints>(yes);
    } else {
        return xsimd::select(yes, n + ints(1), n);
    }
}

/// Consecutive integers from `lowest` on; code c names lowest + c. Rounds half to even. With `has_zero` the zero point
/// is added before clamping, and `lowest` is 0.
struct integer_set {
    float lowest;
    float levels;
    bool has_zero;

    integer_set in_registers() const noexcept { return *this; }

    floats operator()(floats y, floats zero, code* codes) const noexcept {
        floats const n = xsimd::nearbyint(y) + (has_zero ? zero : floats(-lowest));
        ints const c = xsimd::to_int(xsimd::min(xsimd::max(n, floats(0.0F)), floats(levels - 1)));
        store_codes(c, codes);
        return xsimd::to_float(c) + floats(lowest);
    }
};

/// Floating-point numbers with bias 2^(E-1) - 1 up to `highest`; the code is sign, exponent, mantissa. Rounds half to
/// even.
struct float_set {
    int exponent_bits; ///< E
    int mantissa_bits; ///< M
    float highest;

    class registers {
    public:
        explicit registers(float_set const& set) noexcept
            : highest_(set.highest), first_power_(power_of_two(first_exponent(set))),
              to_shift_(power_of_two(127 + 23 - set.mantissa_bits)), drop_(23 - set.mantissa_bits),
              first_field_(first_exponent(set) << set.mantissa_bits),
              sign_(1 << (set.exponent_bits + set.mantissa_bits)) {}

        floats operator()(floats y, floats, code* codes) const noexcept {
            floats const sign = y & floats(-0.0F);
            floats const a = xsimd::min(xsimd::abs(y), highest_);
            // The power of two at or below a; subnormals share the step of the first binade.
            floats const exponent(std::numeric_limits<float>::infinity());
            floats const power = xsimd::max(a & exponent, first_power_);
            // The steps of `shift + a` are those of the set: adding it rounds a, and leaves a / step in the lowest
            // bits.
            floats const shift = power * to_shift_;
            floats const sum = shift + a;
            ints const mantissa = std::bit_cast<ints>(sum) - std::bit_cast<ints>(shift);
            ints const field = (std::bit_cast<ints>(power) >> drop_) - first_field_;
            ints const sign_bit = (std::bit_cast<ints>(sign) >> 31) & sign_;
            store_codes(sign_bit + field + mantissa, codes); // a mantissa of 2^(M+1) carries into the exponent
            return (sum - shift) | sign;
        }

    private:
        /// Of the first binade, as a float holds it.
        static int first_exponent(float_set const& set) noexcept { return 129 - (1 << (set.exponent_bits - 1)); }
        static floats power_of_two(int biased) noexcept { return floats(std::bit_cast<float>(biased << 23)); }

        floats highest_;
        floats first_power_;
        floats to_shift_;
        int drop_; // of a float's mantissa bits
        ints first_field_;
        ints sign_;
    };

    registers in_registers() const noexcept { return registers(*this); }
};

/// Any set of up to 2^Bits numbers.
template <int Bits> struct number_list {
    static constexpr std::size_t most = std::size_t{1} << Bits;

    std::array<float, most> numbers{};     ///< ascending
    std::array<code, most> codes{};        ///< of the numbers
    std::array<std::int32_t, most> last{}; ///< the ordinal of the last float that becomes this number
    bool in_order = true;                  ///< whether code i names number i

    number_list() { last.fill(std::numeric_limits<std::int32_t>::max()); }

    class registers {
    public:
        explicit registers(number_list const& list) noexcept
            : list_(list), in_order_(list.in_order), numbers_(list.numbers.data()) {
            if constexpr (Bits <= 4) {
#if defined(__AVX512F__)
                alignas(64) std::int32_t padded[16] = {};
                std::copy(list.last.begin(), list.last.end(), padded);
                last_[0] = ints::load_aligned(padded);
#else
                for (std::size_t i = 0; i + 1 < most; ++i) {
                    last_[i] = ints(list.last[i]);
                }
#endif
            }
        }

        floats operator()(floats y, floats, code* out) const noexcept {
            find(ordinal(y), out); // positions in the list first
            floats const found = look_up(out);
            if (!in_order_) {
                for (index_t i = 0; i < lanes; ++i) {
                    out[i] = list_.codes[out[i]];
                }
            }
            return found;
        }

    private:
        /// The positions in the list: how many numbers end before.
        void find(ints place, code* positions) const noexcept {
            if constexpr (Bits <= 4) {
#if defined(__AVX512F__)
                __m512i position = _mm512_setzero_si512();
                for (int half = 1 << (Bits - 1); half > 0; half /= 2) {
                    __m512i const middle = _mm512_add_epi32(position, _mm512_set1_epi32(half - 1));
                    __mmask16 const later = _mm512_cmpgt_epi32_mask(place, _mm512_permutexvar_epi32(middle, last_[0]));
                    position = _mm512_mask_add_epi32(position, later, position, _mm512_set1_epi32(half));
                }
                store_codes(position, positions);
#else
                ints position(0);
                [&]<std::size_t... I>(std::index_sequence<I...>) { // unrolled
                    ((position = one_more(position, place > last_[I])), ...);
                }(std::make_index_sequence<most - 1>{});
                store_codes(position, positions);
#endif
            } else { // branchless binary search; gathers would not be faster
                alignas(64) std::int32_t places[lanes];
                place.store_aligned(places);
                for (index_t i = 0; i < lanes; ++i) {
                    std::size_t position = 0;
                    for (std::size_t half = most / 2; half > 0; half /= 2) {
                        position += list_.last[position + half - 1] < places[i] ? half : 0;
                    }
                    positions[i] = static_cast<code>(position);
                }
            }
        }

        floats look_up(code const* positions) const noexcept {
            if constexpr (lookup_table<Bits>::width == lanes) {
                return floats(numbers_(positions));
            } else {
                return [&]<std::size_t... I>(std::index_sequence<I...>) {
                    return floats{numbers_.at(positions[I])...};
                }(std::make_index_sequence<lanes>{});
            }
        }

        number_list const& list_;
        bool in_order_;
        lookup_table<Bits> numbers_;
        std::array<ints, Bits <= 4 ? most : 1> last_;
    };

    registers in_registers() const noexcept { return registers(*this); }
};

/// Rounds `n` weights to `set`: codes, and numbers (set's number - zero) * scale. The scale and zero point of weight i
/// are at `i * stride`; with a stride of 0 there are `lanes` of each, all the same.
template <class Set>
void round(Set const& set, index_t n, float const* weights, float const* scales, float const* zeros, index_t stride,
           code* codes, float* numbers) noexcept {
    auto const nearest = set.in_registers();
    index_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        floats const scale = floats::load_unaligned(scales + i * stride);
        floats const zero = floats::load_unaligned(zeros + i * stride);
        floats const number = nearest(floats::load_unaligned(weights + i) / scale, zero, codes + i);
        ((number - zero) * scale).store_unaligned(numbers + i);
    }
    if (i < n) { // the rest, in a register's width
        float w[lanes] = {};
        float s[lanes];
        float z[lanes] = {};
        code c[lanes];
        float out[lanes];
        std::fill(s, s + lanes, 1.0F);
        std::copy_n(weights + i, n - i, w);
        std::copy_n(scales + i * stride, n - i, s);
        std::copy_n(zeros + i * stride, n - i, z);
        round(set, lanes, w, s, z, 1, c, out);
        std::copy_n(c, n - i, codes + i);
        std::copy_n(out, n - i, numbers + i);
    }
}

/// The same with one scale and zero point for all.
template <class Set>
void round(Set const& set, index_t n, float const* weights, float scale, float zero, code* codes,
           float* numbers) noexcept {
    float scales[lanes];
    float zeros[lanes];
    std::fill(scales, scales + lanes, scale);
    std::fill(zeros, zeros + lanes, zero);
    round(set, n, weights, scales, zeros, 0, codes, numbers);
}

} // namespace detent::inline DETENT_ABI::simd
