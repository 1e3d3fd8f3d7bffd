// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/input_map.hpp"

namespace detent::inline DETENT_ABI {

/// Multiplies every input by the power of two that brings its largest absolute value nearest to that of the largest
/// input, from 2^0 to 2^`most` (the pre-shifted exponent bias of LLM-FP4, Liu et al., section 4.2, moved into the
/// weights as in eq. 19). Powers of two round nothing.
struct power_of_two {
    int most = 3; ///< 2^e - 1 for inputs of e exponent bits, as published

    /// @throws error when the largest inputs are not known, or `most` is not from 0 to 15.
    input_map fit(matrix_view w, layer_inputs const& known) const {
        float_vector const& largest = known.largest();
        if (largest.size() == 0 || most < 0 || most > 15) {
            raise(error("power_of_two", largest.size() == 0 ? "needs the largest of each input, not only their Hessian"
                                                            : "cannot shift by " + std::to_string(most) + " bits"));
        }
        std::vector<float> factors(largest.data(), largest.data() + largest.size());
        float const top = *std::max_element(factors.begin(), factors.end());
        for (float& f : factors) {
            double const bits = f > 0 ? std::nearbyint(std::log2(static_cast<double>(top) / static_cast<double>(f)))
                                      : static_cast<double>(most); // an input that was always 0
            f = std::ldexp(1.0F, static_cast<int>(std::clamp(bits, 0.0, static_cast<double>(most))));
        }
        return {diagonal{std::move(factors)}, w.cols()};
    }

    friend constexpr bool operator==(power_of_two, power_of_two) = default;
};

} // namespace detent::inline DETENT_ABI
