// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "detent/calibrate/fold_transform.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/error.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/transform/transform.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE float_vector factors_of(input_map const& map, index_t features) {
    float_vector factors = float_vector::Ones(features);
    for (auto const& step : map.steps()) {
        auto const* const d = std::get_if<diagonal>(&step);
        if (d == nullptr) {
            throw error("transform", "cannot be folded: it does more than multiply every channel");
        }
        factors.array() *= Eigen::Map<float_vector const>(d->factors.data(), features).array();
    }
    return factors;
}

} // namespace detent::inline DETENT_ABI
