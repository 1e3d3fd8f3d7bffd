// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include <xsimd/xsimd.hpp>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/floats.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/nearest.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// Calls `f(begin, end)` for the stored columns that share a scale of inputs.
template <class F> void for_input_groups(packed_view const& w, F const& f) {
    for (index_t begin = 0; begin < w.shape.cols;) {
        index_t const end_of_tile = std::min((begin / w.tile.cols + 1) * w.tile.cols, w.shape.cols);
        index_t const end = std::min(begin + input_group, end_of_tile);
        f(begin, end);
        begin = end;
    }
}

/// Writes `n` inputs that share a scale as integers and returns the scale; not a number if an input is not finite.
inline float round_to_bytes(float const* x, index_t n, std::int8_t* integers) noexcept {
    floats most(0.0F);
    floats not_finite(0.0F); // or not a number
    index_t const whole = n / lanes * lanes;
    alignas(64) float last[lanes] = {};
    std::copy(x + whole, x + n, last);
    auto const see = [&](floats v) {
        most = xsimd::max(most, xsimd::abs(v));
        not_finite = xsimd::fma(v, floats(0.0F), not_finite);
    };
    for (index_t i = 0; i < whole; i += lanes) {
        see(floats::load_unaligned(x + i));
    }
    see(floats::load_aligned(last));
    alignas(64) float lane[lanes];
    most.store_aligned(lane);
    float const largest = *std::max_element(lane, lane + lanes);
    float const bad = sum(not_finite);
    float const inverse = largest > 0 && bad == 0 ? 127 / largest : 0;
    auto const rounded = [&](floats v) { // 1.5 * 2^23: the lowest bits of the sum are those of the rounded integer
        return std::bit_cast<simd::ints>(xsimd::fma(v, floats(inverse), floats(12582912.0F))) & simd::ints(0xFF);
    };
    for (index_t i = 0; i < whole; i += lanes) {
        simd::store_codes(rounded(floats::load_unaligned(x + i)), reinterpret_cast<code*>(integers + i));
    }
    code bytes[lanes];
    simd::store_codes(rounded(floats::load_aligned(last)), bytes);
    std::memcpy(integers + whole, bytes, static_cast<std::size_t>(n - whole));
    return largest / 127 + bad;
}

/// Writes the numbers (in) that a product takes those of an input for.
inline void round_inputs(packed_view const& w, input_format format, float const* x, float* rounded) noexcept {
    switch (format) {
    case input_format::f32:
        std::copy(x, x + w.shape.cols, rounded);
        return;
    case input_format::bf16:
        std::transform(x, x + w.shape.cols, rounded, [](float v) { return static_cast<float>(bfloat16(v)); });
        return;
    case input_format::int8:
        for_input_groups(w, [&](index_t begin, index_t end) {
            std::int8_t integers[input_group];
            float const scale = round_to_bytes(x + begin, end - begin, integers);
            for (index_t k = begin; k < end; ++k) {
                rounded[k] = static_cast<float>(integers[k - begin]) * scale;
            }
        });
    }
}

} // namespace detent::inline DETENT_ABI::kernel
