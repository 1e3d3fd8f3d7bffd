// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <span>

#include "detent/core/workspace.hpp"

// How units of the target detent::kernels, each compiled for another instruction set, and their callers meet. Nothing
// here depends on compile flags, so it is outside of the inline namespace that does.

namespace detent::compiled {

/// A loop over [0, n) as the caller's executor runs it.
struct loop {
    void const* executor;
    std::int64_t workers;
    void (*for_each)(void const* executor, std::int64_t n, void (*body)(void* data, std::int64_t i), void* data);
    memory* workspace; ///< of the caller; null for none
};

/// `quantized_activations`, borrowed.
struct activation_codes {
    std::int64_t tokens;
    std::int64_t features;
    int bits;
    float const* table;         ///< 2^bits numbers
    std::int64_t width;         ///< features that share a scale, 0 for all
    float const* scales;        ///< a scale and a zero point for each group of each token, or of all tokens
    std::int64_t scale_count;
    std::int8_t const* shifts;  ///< of each feature; null for none
    std::uint8_t const* codes;  ///< (token, feature)
};

/// The products of one instruction set; `products` are `matrix_product`s and `w` is a `packed_view`, else arguments are
/// those of the functions of the same names in `kernel/`.
struct unit {
    char const* name;
    void (*multiply)(void const* products, std::int64_t count, float const* x, std::int64_t x_stride,
                     std::int64_t tokens, loop executor, int format);
    bool (*multiply_codes)(void const* product, activation_codes const& x, loop executor);
    void (*multiply_transposed)(void const* w, float const* g, std::int64_t g_stride, std::int64_t tokens, float* y,
                                std::int64_t y_stride, loop executor);
};

/// The units that this processor can run, the fastest first.
std::span<unit const* const> available();

/// The first of them, or the one that the environment variable DETENT_KERNELS names; throws std::runtime_error if there
/// is none of that name.
unit const& chosen();

} // namespace detent::compiled
