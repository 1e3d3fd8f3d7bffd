// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <xsimd/xsimd.hpp>

#include "detent/core/index.hpp"

#if defined(__AVX__)
#include <immintrin.h>
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

/// Writes the sums of all lanes of four registers.
inline void sums_of_four(floats const* v, float* sums) noexcept {
#if defined(__AVX__)
#if defined(__AVX512F__)
    auto const pairs = [](__m512 a, __m512 b) {
        return _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
    };
    __m512d const low = pairs(v[0], v[1]);
    __m512d const high = pairs(v[2], v[3]);
    __m512 const all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                                     _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
    __m256 const half = _mm256_add_ps(_mm512_castps512_ps256(all),
                                      _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
#else
    __m256 const half = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
#endif
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
#else
    for (int i = 0; i < 4; ++i) {
        sums[i] = sum(v[i]);
    }
#endif
}

} // namespace detent::inline DETENT_ABI::kernel
