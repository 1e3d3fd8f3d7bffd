// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <variant>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/nn/linear.hpp"
#include "detent/quantizer/product.hpp"

namespace detent::inline DETENT_ABI {

/// A named linear map y = x W^T + bias, its weight float or quantized.
struct linear_layer {
    std::string name;                           ///< of the module in the checkpoint, without `.weight`
    std::variant<matrix, packed_matrix> weight; ///< (out, in)
    vector bias;                                ///< one entry per output, or none

    /// (out, in).
    extents shape() const {
        if (auto const* packed = std::get_if<packed_matrix>(&weight)) {
            return packed->shape();
        }
        return shape_of(std::get<matrix>(weight));
    }

    /// (token, in) to (token, out).
    matrix forward(matrix_view x, executor_ref executor = {}) const {
        if (auto const* dense = std::get_if<matrix>(&weight)) {
            return nn::linear(x, *dense, bias, executor);
        }
        auto const& packed = std::get<packed_matrix>(weight);
        DETENT_EXPECTS(bias.size() == packed.shape().rows || bias.size() == 0);
        matrix y(x.rows(), packed.shape().rows); // (token, out)
        multiply(packed, x, y, executor);
        if (bias.size() > 0) {
            y.rowwise() += bias.transpose();
        }
        return y;
    }

    /// The gradient with respect to the input, (token, in), given that with respect to the result, (token, out).
    matrix input_gradient(matrix_view g, executor_ref executor = {}) const {
        if (auto const* dense = std::get_if<matrix>(&weight)) {
            return nn::linear_input_gradient(g, *dense, executor);
        }
        auto const& packed = std::get<packed_matrix>(weight);
        matrix x(g.rows(), packed.shape().cols); // (token, in)
        multiply_transposed(packed, g, x, executor);
        return x;
    }
};

} // namespace detent::inline DETENT_ABI
