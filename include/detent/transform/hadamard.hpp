// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/matrix/input_map.hpp"
#include "detent/simd/hadamard.hpp"

namespace detent::inline DETENT_ABI {

/// The largest power of two up to `width` that divides `features`, at least 1: the blocks that `hadamard` rotates.
constexpr index_t hadamard_width(index_t width, index_t features) {
    index_t block = 1;
    while (2 * block <= width && features % (2 * block) == 0) {
        block *= 2;
    }
    return block;
}

/// Rotates every `Width` consecutive inputs by the orthonormal Walsh-Hadamard matrix (QuaRot, Ashkboos et al.; in
/// blocks as MR-GPTQ, Egiazarian et al.): outliers are spread over their block. Where `Width` does not divide the
/// inputs, the largest power of two below that does is taken (`hadamard_width`); `hadamard<>{64}` takes the width at
/// run time.
template <index_t Width = dynamic> struct hadamard {
    static_assert(simd::is_power_of_two(Width), "a Hadamard block is a power of two wide");

    template <class Evidence = layer_inputs> input_map fit(matrix_view w, Evidence const&) const {
        return {block_hadamard{hadamard_width(Width, w.cols())}, w.cols()};
    }

    friend constexpr bool operator==(hadamard, hadamard) = default;
};
template <> struct hadamard<dynamic> {
    index_t width = 128;

    /// @throws error when `width` is no power of two.
    template <class Evidence = layer_inputs> input_map fit(matrix_view w, Evidence const&) const {
        if (!simd::is_power_of_two(width)) {
            raise(error("hadamard", "blocks of " + std::to_string(width) + " are no power of two"));
        }
        return {block_hadamard{hadamard_width(width, w.cols())}, w.cols()};
    }

    friend constexpr bool operator==(hadamard, hadamard) = default;
};

} // namespace detent::inline DETENT_ABI
