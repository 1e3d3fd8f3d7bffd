// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>
#include <variant>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace detent::inline DETENT_ABI {

/// A named linear map y = x W^T + bias, its weight float or quantized, its input too or not.
struct linear_layer {
    std::string name;                           ///< of the module in the checkpoint, without `.weight`
    std::variant<matrix, packed_matrix> weight; ///< (out, in)
    float_vector bias;                          ///< one entry per output, or none
    /// Rounds what the layer reads, mapped where a packed weight maps it; none where that stays as it is.
    std::optional<activation_quantizer> input = {};

    /// (out, in).
    extents shape() const;

    /// Row `i` of the weight (in).
    Eigen::RowVectorXf weight_row(index_t i) const;

    /// (token, in) to (token, out). Where the input is quantized, a packed weight meets its codes.
    matrix forward(matrix_view x, executor_ref executor = {}) const;

    /// The gradient with respect to the input, (token, in), given that with respect to the result, (token, out).
    matrix input_gradient(matrix_view g, executor_ref executor = {}) const;

private:
    matrix forward_quantized(matrix_view x, executor_ref executor) const;

    matrix forward_packed(matrix_view x, executor_ref executor) const;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/linear_layer.ipp" // IWYU pragma: export
#endif
