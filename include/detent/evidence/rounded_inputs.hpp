// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/activation_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// What a layer knows of its inputs `x` (token, in) when they are rounded by `input`, and were not.
template <class Scalar = double>
basic_layer_inputs<Scalar> rounded_inputs(matrix_view x, activation_quantizer const& input,
                                          executor_ref executor = {}) {
    basic_layer_inputs<Scalar> seen(x.cols());
    seen.add(input.round(x, executor), x, executor);
    return seen;
}

} // namespace detent::inline DETENT_ABI
