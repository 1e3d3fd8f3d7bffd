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
    layer_place place; ///< in its block
    extents shape;
    index_t tokens = 0;         ///< whose inputs it was shown
    bool few_tokens = false;    ///< it belongs to an expert that was sent fewer tokens than the layer has inputs
    double bits_per_weight = 0; ///< all that is stored
    double effective_bits = 0;  ///< `packed_matrix::effective_bits`
    index_t weak_columns = 0;
    double error = 0;       ///< |(W - Q) x|^2 / |W x|^2 over the calibration inputs x; 0 where there were none
    double float_error = 0; ///< with a float stream |W x~ - Q x|^2 / |W x~|^2, where x~ are the float model's inputs
    double seconds = 0;     ///< spent on solving and packing
    solve_report solve;
};

/// Quantizes one weight matrix (out, in) given what is known about its inputs, of which most need only the Hessian, and
/// its place in its block; that of the output head is `{linear_role::head}`.
using quantize_layer = function_ref<quantization(matrix const& weights, layer_inputs const& inputs, layer_place place)>;

/// Replaces the weights of `layer` by what `quantize` makes of them, and rounds its input from now on where `quantize`
/// says so. @throws error naming the layer when it is quantized already or cannot be.
layer_report quantize_linear(linear_layer& layer, layer_place place, layer_inputs const& inputs,
                             quantize_layer quantize, executor_ref executor = {});

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/quantize_linear.ipp" // IWYU pragma: export
#endif
