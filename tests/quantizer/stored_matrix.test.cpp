// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/quantizer/stored_matrix.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

/// What a number becomes when it is stored.
float stored(float x, float_format format) {
    return format == float_format::f16    ? static_cast<float>(half(x))
           : format == float_format::bf16 ? static_cast<float>(bfloat16(x))
                                          : x;
}

TEST(stored_matrix, product_is_that_of_its_numbers) {
    for (float_format const format : {float_format::f16, float_format::bf16, float_format::f32}) {
        for (extents const shape : {extents{1, 1}, {5, 40}, {9, 131}, {300, 600}}) {
            matrix const w = random_matrix(shape.rows, shape.cols, 1);
            stored_matrix const packed(w, format);
            matrix const numbers = w.unaryExpr([&](float x) { return stored(x, format); });
            EXPECT_EQ(packed.numbers(), numbers);
            for (index_t const tokens : {0, 1, 3, 4, 8, 9, 30}) {
                matrix const x = random_matrix(tokens + 1, shape.cols + 2, 2);
                matrix y = matrix::Constant(tokens, shape.rows + 3, -7);
                auto const inputs = x.block(1, 2, tokens, shape.cols);
                multiply(packed, inputs, y.leftCols(shape.rows));
                Eigen::MatrixXd const exact = inputs.cast<double>() * numbers.cast<double>().transpose();
                Eigen::MatrixXd const size =
                    inputs.cast<double>().cwiseAbs() * numbers.cast<double>().cwiseAbs().transpose();
                auto const error = (y.leftCols(shape.rows).cast<double>() - exact).cwiseAbs();
                EXPECT_TRUE((error.array() <= 2e-6 * size.array()).all())
                    << shape.rows << " x " << shape.cols << ", " << tokens << " tokens";
                EXPECT_EQ(y.rightCols(3), matrix::Constant(tokens, 3, -7));
            }
        }
    }
}

TEST(stored_matrix, epilogues_follow_the_sums) {
    stored_matrix const w(random_matrix(67, 300, 1), float_format::f16);
    matrix const bias = random_matrix(1, 67, 3);
    for (index_t const tokens : {1, 5, 40}) {
        matrix const x = random_matrix(tokens, 300, 2);
        matrix const plus = random_matrix(tokens, 67, 4);
        matrix sums(tokens, 67);
        multiply(w, x, sums);
        matrix const expected = (sums.rowwise() + bias.row(0)).cwiseMax(0) + plus;
        epilogue after{
            .bias = bias.data(), .function = epilogue_function::relu, .plus = plus.data(), .plus_stride = 67};
        matrix y(tokens, 67);
        multiply(w, x, y, after);
        EXPECT_EQ(y, expected);
        y = plus;
        after.plus = y.data();
        multiply(w, x, y, after);
        EXPECT_EQ(y, expected);
    }
}

TEST(stored_matrix, threads_change_no_bit) {
    stored_matrix const w(random_matrix(700, 900, 1), float_format::f16);
    thread_team two(2);
    for (index_t const tokens : {1, 5, 40}) {
        matrix const x = random_matrix(tokens, 900, 2);
        matrix serially(tokens, 700);
        matrix y(tokens, 700);
        multiply(w, x, serially);
        multiply(w, x, y, two);
        EXPECT_EQ(y, serially);
    }
}

} // namespace
