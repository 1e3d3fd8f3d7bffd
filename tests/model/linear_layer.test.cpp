// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/linear_layer.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"

namespace detent {

TEST(linear_layer, packed_and_dense_weights_give_the_same_outputs) {
    matrix const x = matrix::NullaryExpr(5, 40, [](index_t r, index_t c) { return std::sin(float(3 * r + c)); });
    matrix const w = matrix::NullaryExpr(9, 40, [](index_t r, index_t c) { return std::cos(float(7 * r + 2 * c)); });
    packed_matrix const packed = quantizer<int_grid<4>, per_group<8>>{}(w).packed();
    for (float_vector const& bias : {float_vector{}, float_vector(float_vector::LinSpaced(9, -1.0F, 1.0F))}) {
        linear_layer const quantized{.name = "q", .weight = packed, .bias = bias};
        linear_layer const dense{.name = "d", .weight = dequantize(packed), .bias = bias};
        EXPECT_EQ(quantized.shape(), (extents{9, 40}));
        EXPECT_EQ(dense.shape(), (extents{9, 40}));
        for (index_t const tokens : {1, 5}) {
            matrix const difference = quantized.forward(x.topRows(tokens)) - dense.forward(x.topRows(tokens));
            EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-4F);
        }
        EXPECT_NE(dense.forward(x), (x * w.transpose()).eval());
    }
}

} // namespace detent
