// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/model/linear_layer.hpp"
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

TEST(stored_rows, lie_in_runs) {
    auto const rows = [](stored_rows const& at, index_t count) {
        std::vector<index_t> all;
        for (index_t i = 0; i < count; ++i) {
            all.push_back(at.row(i));
        }
        return all;
    };
    using list = std::vector<index_t>;
    EXPECT_EQ(rows({.tensor = "qkv", .rows = 12, .first = 4, .run = 4, .stride = 12}, 4), (list{4, 5, 6, 7}));
    EXPECT_EQ(rows({.tensor = "by_head", .rows = 12, .first = 2, .run = 2, .stride = 6}, 4), (list{2, 3, 8, 9}));
    EXPECT_EQ(rows({.tensor = "in_turns", .rows = 8, .first = 1, .run = 1, .stride = 2}, 4), (list{1, 3, 5, 7}));
}

TEST(stored_rows, are_in_tensors_with_these_names) {
    stored_rows at{.tensor = "a.qkv"};
    EXPECT_EQ(at.weight_name(), "a.qkv.weight");
    EXPECT_EQ(at.bias_name(), "a.qkv.bias");
    at = {.tensor = "a.in_proj", .dot = "_"};
    EXPECT_EQ(at.weight_name(), "a.in_proj_weight");
    EXPECT_EQ(at.bias_name(), "a.in_proj_bias");
    at = {.tensor = "a.experts.down_proj", .experts = 4, .expert = 1};
    EXPECT_EQ(at.weight_name(), "a.experts.down_proj");
    EXPECT_EQ(at.bias_name(), "a.experts.down_proj_bias");
}

} // namespace detent
