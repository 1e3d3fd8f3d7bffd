// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

#include "detent/core/index.hpp"
#include "detent/simd/nearest.hpp"

#if defined(__SSE4_1__)
#include <immintrin.h>
#endif

namespace detent::inline DETENT_ABI::simd {

/// As many bytes as a register has lanes, from any address, each as an integer in its lane. Reads no other byte.
inline ints load_bytes(std::uint8_t const* bytes) noexcept {
#if defined(__AVX512F__)
    return ints(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(bytes))));
#elif defined(__AVX2__)
    return ints(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(bytes))));
#elif defined(__SSE4_1__) && !defined(__AVX__)
    return ints(_mm_cvtepu8_epi32(_mm_loadu_si32(bytes)));
#else
    alignas(64) std::int32_t values[lanes];
    for (index_t i = 0; i < lanes; ++i) {
        values[i] = bytes[i];
    }
    return ints::load_aligned(values);
#endif
}

} // namespace detent::inline DETENT_ABI::simd
