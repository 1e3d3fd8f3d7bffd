// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include <xsimd/xsimd.hpp>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"

#if defined(__AVX2__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace detent::inline DETENT_ABI::simd {

/// A register of `T`s, 16 bits each, from any address, as floats. One by one: for machines without an instruction.
template <class T> xsimd::batch<float> load_as_floats(std::uint8_t const* bytes) noexcept {
    constexpr auto count = xsimd::batch<float>::size;
    T stored[count];
    alignas(64) float values[count];
    std::memcpy(stored, bytes, sizeof stored);
    for (std::size_t i = 0; i < count; ++i) {
        values[i] = static_cast<float>(stored[i]);
    }
    return xsimd::batch<float>::load_aligned(values);
}

/// One half as a float, by an instruction where there is one.
inline float to_float(half x) noexcept {
#if defined(__F16C__)
    return _cvtsh_ss(x.bits);
#else
    return static_cast<float>(x);
#endif
}

/// As many halves as a register has floats, from any address.
inline xsimd::batch<float> load_halves(std::uint8_t const* bytes) noexcept {
#if defined(__AVX512F__)
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(bytes)))};
#elif defined(__F16C__) // comes with AVX
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(bytes)))};
#else
    return load_as_floats<half>(bytes);
#endif
}

/// As many bfloat16 as a register has floats, from any address.
inline xsimd::batch<float> load_bfloats(std::uint8_t const* bytes) noexcept {
#if defined(__AVX512F__)
    __m512i const wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(bytes)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
#elif defined(__AVX2__)
    __m256i const wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(bytes)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
#else
    return load_as_floats<bfloat16>(bytes); // a shift, which compilers vectorize
#endif
}

} // namespace detent::inline DETENT_ABI::simd
