// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/block.hpp"
#include "detent/model/linear_layer.hpp"

namespace detent::inline DETENT_ABI {

/// What happened to one linear layer.
struct layer_report {
    std::string name;
    extents shape;
    double bits_per_weight = 0; ///< all that is stored
    double effective_bits = 0;  ///< `packed_matrix::effective_bits`
    index_t weak_columns = 0;
    double error = 0;       ///< |(W - Q) x|^2 / |W x|^2 over the calibration inputs x
    double float_error = 0; ///< with a float stream |W x~ - Q x|^2 / |W x~|^2, where x~ are the float model's inputs
    double seconds = 0;     ///< spent on solving and packing
    solve_report solve;
};

/// Quantizes one weight matrix (out, in) given what is known about its inputs, of which most need only the Hessian, and
/// what it does in its block.
using quantize_layer = function_ref<quantization(matrix const& weights, layer_inputs const& inputs, linear_role role)>;

/// Replaces the weights of `layer` by what `quantize` makes of them, and rounds its input from now on where `quantize`
/// says so. @throws error naming the layer when it is quantized already or cannot be.
layer_report quantize_linear(linear_layer& layer, linear_role role, layer_inputs const& inputs, quantize_layer quantize,
                             executor_ref executor = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/quantize_linear.ipp" // IWYU pragma: export
#endif
