// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace detent::inline DETENT_ABI::kernel {

/// A register of floats.
using floats = xsimd::batch<float>;
/// How many it holds.
inline constexpr auto lanes = static_cast<index_t>(floats::size);

/// The sum of all lanes.
inline float sum(floats v) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::reduce_add(v);
#else
    return xsimd::hadd(v);
#endif
}

/// Four numbers, side by side again and again.
inline floats in_quads(float a, float b, float c, float d) noexcept {
#if defined(__AVX512F__)
    return floats(_mm512_broadcast_f32x4(_mm_setr_ps(a, b, c, d)));
#elif defined(__AVX__)
    __m128 const four = _mm_setr_ps(a, b, c, d);
    return floats(_mm256_set_m128(four, four));
#elif defined(__SSE2__)
    return floats(_mm_setr_ps(a, b, c, d));
#else
    static_assert(lanes == 4);
    alignas(floats) float const four[] = {a, b, c, d};
    return floats::load_aligned(four);
#endif
}

/// Writes the sums of all lanes 4 q + r, for r = 0, 1, 2, 3.
inline void sums_over_quads(floats v, float* sums) noexcept {
#if defined(__AVX__)
#if defined(__AVX512F__)
    __m256d const upper = _mm512_extractf64x4_pd(_mm512_castps_pd(v), 1);
    __m256 const half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(upper));
#else
    __m256 const half = v;
#endif
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
    v.store_unaligned(sums);
#endif
}

/// Writes the sums of all lanes of four registers.
inline void sums_of_four(floats const* v, float* sums) noexcept {
#if defined(__AVX512F__)
    auto const pairs = [](__m512 a, __m512 b) {
        return _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    };
    __m512d const low = pairs(v[0], v[1]);
    __m512d const high = pairs(v[2], v[3]);
    sums_over_quads(floats(_mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                                         _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)))),
                    sums);
#elif defined(__AVX__)
    sums_over_quads(floats(_mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]))), sums);
#else
    for (int i = 0; i < 4; ++i) {
        sums[i] = sum(v[i]);
    }
#endif
}

} // namespace detent::inline DETENT_ABI::kernel
