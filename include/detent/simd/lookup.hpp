// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/core/index.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace detent::inline DETENT_ABI::simd {

#if defined(__AVX512F__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion" // of the mask in what is a macro without optimization
/// The floats of `table` at 16 positions.
inline __m512 gather(float const* table, __m512i positions) noexcept { return _mm512_i32gather_ps(positions, table, 4); }
#pragma GCC diagnostic pop

/// A table of 2^Bits floats, held in registers up to 5 bits. Larger ones that are `consecutive`, table[c] = table[0] +
/// c, are computed; the rest is gathered from memory.
template <int Bits> class lookup_table {
public:
    static constexpr index_t width = 16;

    explicit lookup_table(float const* table, bool consecutive = false) noexcept
        : table_(table), consecutive_(consecutive) {
        if constexpr (Bits <= 4) {
            low_ = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << (1U << Bits)) - 1), table);
        } else if constexpr (Bits == 5) {
            low_ = _mm512_loadu_ps(table);
            high_ = _mm512_loadu_ps(table + 16);
        }
    }

    /// The floats of `width` codes.
    __m512 operator()(code const* codes) const noexcept {
        __m512i const i = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(codes)));
        if constexpr (Bits <= 4) {
            return _mm512_permutexvar_ps(i, low_);
        } else if constexpr (Bits == 5) {
            return _mm512_permutex2var_ps(low_, i, high_);
        } else {
            return consecutive_ ? _mm512_add_ps(_mm512_cvtepi32_ps(i), _mm512_set1_ps(table_[0]))
                                : gather(table_, i);
        }
    }

    float at(code c) const noexcept { return table_[c]; }

    static void store(float* out, __m512 values) noexcept { _mm512_storeu_ps(out, values); }

private:
    float const* table_;
    bool consecutive_;
    __m512 low_ = _mm512_setzero_ps();
    __m512 high_ = _mm512_setzero_ps();
};
#elif defined(__AVX2__)
/// A table of 2^Bits floats, held in registers up to 4 bits. Larger ones that are `consecutive`, table[c] = table[0] +
/// c, are computed; the rest is gathered from memory.
template <int Bits> class lookup_table {
public:
    static constexpr index_t width = 8;

    explicit lookup_table(float const* table, bool consecutive = false) noexcept
        : table_(table), consecutive_(consecutive) {
        if constexpr (Bits <= 4) {
            alignas(32) float padded[16] = {};
            std::memcpy(padded, table, sizeof(float) << Bits);
            low_ = _mm256_load_ps(padded);
            high_ = _mm256_load_ps(padded + 8);
        }
    }

    /// The floats of `width` codes.
    __m256 operator()(code const* codes) const noexcept {
        __m256i const i = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(codes)));
        if constexpr (Bits <= 3) {
            return _mm256_permutevar8x32_ps(low_, i);
        } else if constexpr (Bits == 4) {
            __m256 const upper = _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)); // bit 3 selects the upper half
            return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low_, i), _mm256_permutevar8x32_ps(high_, i), upper);
        } else {
            return consecutive_ ? _mm256_add_ps(_mm256_cvtepi32_ps(i), _mm256_set1_ps(table_[0]))
                                : _mm256_i32gather_ps(table_, i, 4);
        }
    }

    float at(code c) const noexcept { return table_[c]; }

    static void store(float* out, __m256 values) noexcept { _mm256_storeu_ps(out, values); }

private:
    float const* table_;
    bool consecutive_;
    __m256 low_ = _mm256_setzero_ps();
    __m256 high_ = _mm256_setzero_ps();
};
#else
/// A table of 2^Bits floats.
template <int Bits> class lookup_table {
public:
    static constexpr index_t width = 1;

    explicit lookup_table(float const* table, bool = false) noexcept : table_(table) {}
    float operator()(code const* codes) const noexcept { return table_[*codes]; }
    float at(code c) const noexcept { return table_[c]; }
    static void store(float* out, float value) noexcept { *out = value; }

private:
    float const* table_;
};
#endif

/// `out[i] = table[codes[i]]` for `n` codes below 2^Bits; for `consecutive` see `lookup_table`.
template <int Bits>
void lookup(float const* table, code const* codes, index_t n, float* out, bool consecutive = false) noexcept {
    using registers = lookup_table<Bits>;
    registers const in_registers(table, consecutive);
    index_t i = 0;
    for (; i + registers::width <= n; i += registers::width) {
        registers::store(out + i, in_registers(codes + i));
    }
    for (; i < n; ++i) {
        out[i] = table[codes[i]];
    }
}

} // namespace detent::inline DETENT_ABI::simd
