// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

#include "detent/core/index.hpp"
#include "detent/matrix/packed_view.hpp"

namespace detent::inline DETENT_ABI {

/// The function of an `epilogue`: x * sigmoid(x), x * Phi(x) with the normal distribution function Phi, its form with
/// tanh, and max(x, 0).
enum class epilogue_function : std::int32_t { none, silu, gelu, gelu_tanh, relu };

/// What becomes of the sums of a product before they are stored: y = f(sums + bias) * times + plus, each part where it
/// is given. Numbers are borrowed. `plus` may be `y` itself, which makes it y += W x.
struct epilogue {
    float const* bias = nullptr; ///< (out)
    epilogue_function function = epilogue_function::none;
    float const* times = nullptr; ///< (token, out), as a gated activation has it
    index_t times_stride = 0;     ///< floats from a token to the next
    float const* plus = nullptr;  ///< (token, out), as a residual
    index_t plus_stride = 0;      ///< floats from a token to the next

    /// Whether it leaves sums as they are.
    constexpr bool empty() const {
        return bias == nullptr && function == epilogue_function::none && times == nullptr && plus == nullptr;
    }
};

/// One of several products that read the same inputs: y = after(x W^T), y (token, out). Where `after.times` is the `y`
/// of the product before it in the same call, with as many rows, both are computed together, as in a gated unit.
struct matrix_product {
    packed_view w;
    float* y;
    index_t y_stride; ///< floats from a token to the next
    epilogue after = {};
};

} // namespace detent::inline DETENT_ABI
