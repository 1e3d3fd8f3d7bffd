// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/matrix/input_format.hpp"
#include "detent/matrix/packed_view.hpp"

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
    float largest = 0;
    float not_finite = 0; // or not a number
    for (index_t i = 0; i < n; ++i) {
        largest = std::max(largest, std::abs(x[i]));
        not_finite += x[i] * 0;
    }
    float const inverse = largest > 0 && not_finite == 0 ? 127 / largest : 0;
    for (index_t i = 0; i < n; ++i) { // 1.5 * 2^23: the lowest bits of the sum are the rounded integer
        integers[i] = static_cast<std::int8_t>(std::bit_cast<std::int32_t>(x[i] * inverse + 12582912.0F));
    }
    return largest / 127 + not_finite;
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
