// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/core/eigen.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/matrix/quantized_activations.hpp"

namespace detent::inline DETENT_ABI {

/// The dense weights (in) of one row, inputs in their natural order.
inline Eigen::RowVectorXf dequantize_row(packed_matrix const& packed, index_t row) {
    Eigen::RowVectorXf w(packed.shape().cols);
    for (index_t col = 0; col < w.size(); ++col) {
        w(packed.order.empty() ? col : packed.order[static_cast<std::size_t>(col)]) = packed.stored_at(row, col);
    }
    return w;
}

/// The dense weights (out, in) of a packed matrix, inputs in their natural order.
inline matrix dequantize(packed_matrix const& packed) {
    auto const [rows, cols] = packed.shape();
    matrix w(rows, cols);
    for (index_t row = 0; row < rows; ++row) {
        w.row(row) = dequantize_row(packed, row);
    }
    return w;
}

/// The numbers (token, feature) of quantized activations.
inline matrix dequantize(quantized_activations const& q) {
    matrix x(q.shape.rows, q.shape.cols); // (token, feature)
    for (index_t token = 0; token < x.rows(); ++token) {
        for (index_t feature = 0; feature < x.cols(); ++feature) {
            x(token, feature) = q.at(token, feature);
        }
    }
    return x;
}

/// The shape of quantized activations, (token, feature).
inline extents shape_of(quantized_activations const& x) { return x.shape; }

} // namespace detent::inline DETENT_ABI
