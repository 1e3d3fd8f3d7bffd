// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>

#include "detent/core/eigen.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/input_map.hpp"

namespace detent::inline DETENT_ABI {

/// A transform keeps the float function of a layer and changes the problem of rounding it: fitted to the weights (out,
/// in) and what is known about their inputs, it answers how inputs are mapped from now on. It may throw `error` where
/// it has to know more. `transformed` does the rest.
template <class T>
concept Transform = std::regular<T> && requires(T const transform, matrix_view w, layer_inputs const& known) {
    { transform.fit(w, known) } -> std::same_as<input_map>;
};

} // namespace detent::inline DETENT_ABI
