// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "detent/core/workspace.hpp"
#include "detent/matrix/epilogue.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/compiled_product.hpp"

// How units of the target detent::kernels, each compiled for another instruction set, and their callers meet. Nothing
// here depends on compile flags, so it is outside of the inline namespace that does. The headers of both may be of
// other versions, where detent::kernels is installed, which `chosen` tells.

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
    float const* table;  ///< 2^bits numbers
    std::int64_t width;  ///< features that share a scale, 0 for all
    float const* scales; ///< a scale and a zero point for each group of each token, or of all tokens
    std::int64_t scale_count;
    std::int8_t const* shifts; ///< of each feature; null for none
    std::uint8_t const* codes; ///< (token, feature)
};

/// The products of one instruction set; `products` are `matrix_product`s and `w` is a `packed_view`, else arguments are
/// those of the functions of the same names in `kernel/`.
struct unit {
    std::uint32_t layout; ///< `layout_of_headers` when it was compiled; stays the first
    char const* name;
    void (*multiply)(void const* products, std::int64_t count, float const* x, std::int64_t x_stride,
                     std::int64_t tokens, loop executor, int format);
    std::int64_t (*multiply_codes)(void const* products, std::int64_t count, activation_codes const& x, loop executor);
    void (*multiply_transposed)(void const* w, float const* g, std::int64_t g_stride, std::int64_t tokens, float* y,
                                std::int64_t y_stride, loop executor);
    dense_products dense;
};

/// A number that is another for headers with which a caller and the target detent::kernels would not understand each
/// other: it contains the layout of all that is passed, and a version, to be counted up when the meaning changes.
constexpr std::uint32_t layout_of_headers() {
    constexpr std::uint32_t version = 3;
    std::uint32_t hash = version;
    for (std::size_t const number : std::initializer_list<std::size_t>{
             sizeof(unit), sizeof(loop), sizeof(activation_codes), offsetof(activation_codes, scales),
             offsetof(activation_codes, codes), sizeof(packed_view), offsetof(packed_view, bits),
             offsetof(packed_view, shape), offsetof(packed_view, tile), offsetof(packed_view, scales),
             offsetof(packed_view, zeros), offsetof(packed_view, table), offsetof(packed_view, consecutive),
             offsetof(packed_view, weak), offsetof(weak_view, columns), offsetof(weak_view, values),
             offsetof(weak_view, format), sizeof(matrix_product), offsetof(matrix_product, after), sizeof(epilogue),
             offsetof(epilogue, times), offsetof(epilogue, plus)}) {
        hash = hash * 16777619U + static_cast<std::uint32_t>(number);
    }
    return hash;
}

/// The units that this processor can run, the fastest first.
std::span<unit const* const> available();

/// The first of them, or the one that the environment variable DETENT_KERNELS names; throws std::runtime_error if there
/// is none of that name, or if detent::kernels was compiled from headers with another `layout` than the caller's.
unit const& chosen(std::uint32_t layout = layout_of_headers());

} // namespace detent::compiled
