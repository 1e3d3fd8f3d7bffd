// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>
#include <variant>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/nn/linear.hpp"
#include "detent/quantizer/product.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE extents linear_layer::shape() const {
    if (auto const* packed = std::get_if<packed_matrix>(&weight)) {
        return packed->shape();
    }
    return shape_of(std::get<matrix>(weight));
}

DETENT_INLINE Eigen::RowVectorXf linear_layer::weight_row(index_t i) const {
    if (auto const* dense = std::get_if<matrix>(&weight)) {
        return dense->row(i);
    }
    return dequantize_row(std::get<packed_matrix>(weight), i);
}

DETENT_INLINE matrix linear_layer::forward(matrix_view x, executor_ref executor) const {
    if (input) {
        return forward_quantized(x, executor);
    }
    if (auto const* dense = std::get_if<matrix>(&weight)) {
        return nn::linear(x, *dense, bias, executor);
    }
    return forward_packed(x, executor);
}

DETENT_INLINE matrix linear_layer::input_gradient(matrix_view g, executor_ref executor) const {
    if (auto const* dense = std::get_if<matrix>(&weight)) {
        return nn::linear_input_gradient(g, *dense, executor);
    }
    auto const& packed = std::get<packed_matrix>(weight);
    matrix x(g.rows(), packed.shape().cols); // (token, in)
    multiply_transposed(packed, g, x, executor);
    return x;
}

DETENT_INLINE matrix linear_layer::forward_quantized(matrix_view x, executor_ref executor) const {
    if (auto const* dense = std::get_if<matrix>(&weight)) {
        return nn::linear(input->round(x, executor), *dense, bias, executor);
    }
    return forward_packed(x, executor);
}

DETENT_INLINE matrix linear_layer::forward_packed(matrix_view x, executor_ref executor) const {
    auto const& packed = std::get<packed_matrix>(weight);
    expect_valid(bias.size() == packed.shape().rows || bias.size() == 0, "bias", "has not one entry for each output");
    matrix y(x.rows(), packed.shape().rows); // (token, out)
    input ? multiply(packed, *input, x, y, executor) : multiply(packed, x, y, executor);
    if (bias.size() > 0) {
        y.rowwise() += bias.transpose();
    }
    return y;
}

} // namespace detent::inline DETENT_ABI
