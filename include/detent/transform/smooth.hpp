// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/input_map.hpp"

namespace detent::inline DETENT_ABI {

/// By how much `smooth` divides each channel: the size of its input to the power of `exponent` over the size of its
/// weights to the power of 1 - `exponent`, not below 1e-5, which channels without inputs or weights would make 0.
inline float_vector smoothing_scales(float_vector const& inputs, float_vector const& weights, float exponent) {
    constexpr float least = 1e-5F;
    float_vector scales(inputs.size());
    for (index_t j = 0; j < scales.size(); ++j) {
        float const input = std::pow(std::max(inputs(j), least), exponent);
        scales(j) = std::max(input / std::pow(std::max(weights(j), least), 1 - exponent), least);
    }
    return scales;
}

/// How large the inputs of a channel are.
enum class channel_size {
    largest,         ///< their largest absolute value (SmoothQuant)
    root_mean_square ///< for which their Hessian suffices
};

/// SmoothQuant (Xiao et al., eq. 4), with which OmniQuant's LET begins: divides every input x_j by
/// s_j = max |x_j|^a / max |W_j|^(1 - a), which moves what is hard to round from inputs to weights.
template <channel_size Size = channel_size::largest> struct smooth {
    float exponent = 0.5F; ///< a, from 0 to 1

    /// @throws error when `exponent` is out of range, or how large inputs are is not known.
    input_map fit(matrix_view w, layer_inputs const& known) const {
        if (!(exponent >= 0 && exponent <= 1)) {
            raise(error("smooth", "its exponent is " + std::to_string(exponent) + ", not from 0 to 1"));
        }
        float_vector const scales = smoothing_scales(size_of(known), largest_of_columns(w), exponent);
        std::vector<float> factors(scales.data(), scales.data() + scales.size());
        for (float& f : factors) {
            f = 1 / f;
        }
        return {diagonal{std::move(factors)}, w.cols()};
    }

    friend constexpr bool operator==(smooth, smooth) = default;

private:
    static float_vector size_of(layer_inputs const& known) {
        if constexpr (Size == channel_size::root_mean_square) {
            float_vector sizes(known.features());
            for (index_t j = 0; j < sizes.size(); ++j) {
                sizes(j) = static_cast<float>(std::sqrt(0.5 * known.hessian()(j, j)));
            }
            return sizes;
        } else {
            if (known.largest().size() == 0) {
                raise(error("smooth", "needs the largest of each input, not only their Hessian"));
            }
            return known.largest();
        }
    }
};

} // namespace detent::inline DETENT_ABI
