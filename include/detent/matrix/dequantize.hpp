// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/matrix/quantized_activations.hpp"

namespace detent::inline DETENT_ABI {

/// The rows [first, last) of the weights, (last - first, in), for inputs as they come, before the map. @throws error
/// when the matrix has no such rows.
template <class Scalar = float>
basic_matrix<Scalar> dequantize_rows(packed_matrix const& packed, index_t first, index_t last) {
    expect_valid(first >= 0 && first <= last && last <= packed.shape().rows, "rows", "are not of the matrix");
    expect_complete(packed);
    basic_matrix<Scalar> w(last - first, packed.shape().cols);
    for (index_t row = first; row < last; ++row) {
        for (index_t col = 0; col < w.cols(); ++col) {
            w(row - first, col) = packed.stored_at(row, col);
        }
    }
    return packed.map.back(std::move(w));
}

/// The dense weights (in) of one row, for inputs as they come.
template <class Scalar = float>
Eigen::Matrix<Scalar, 1, Eigen::Dynamic> dequantize_row(packed_matrix const& packed, index_t row) {
    return dequantize_rows<Scalar>(packed, row, row + 1).row(0);
}

/// The dense weights (out, in) of a packed matrix, for inputs as they come.
template <class Scalar = float> basic_matrix<Scalar> dequantize(packed_matrix const& packed) {
    return dequantize_rows<Scalar>(packed, 0, packed.shape().rows);
}

/// The numbers (token, feature) of quantized activations.
inline matrix dequantize(quantized_activations const& q) {
    expect_complete(q);
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

#if defined(DETENT_COMPILED)
extern template matrix dequantize_rows<float>(packed_matrix const&, index_t, index_t);
#endif

} // namespace detent::inline DETENT_ABI
