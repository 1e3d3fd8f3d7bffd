// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/activation.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "random_matrix.hpp"

namespace detent {

namespace {

/// Compares `y` with `f` of every entry of `x`, relative to the answer.
template <class F> void expect_elementwise(matrix const& x, matrix const& y, F const& f, double tolerance) {
    for (index_t r = 0; r < x.rows(); ++r) {
        for (index_t c = 0; c < x.cols(); ++c) {
            double const expected = f(double(x(r, c)));
            EXPECT_NEAR(y(r, c), expected, tolerance * std::abs(expected)) << "at " << x(r, c);
        }
    }
}

/// -8 .. 8 in 65 rows (more than one piece) of 37 columns (a tail for every vector width).
matrix const sweep = vector::LinSpaced(65 * 37, -8.0F, 8.0F).reshaped<Eigen::RowMajor>(65, 37);

} // namespace

TEST(activation, silu) {
    expect_elementwise(
        sweep, nn::silu(sweep), [](double x) { return x / (1 + std::exp(-x)); }, 1e-6);
}

TEST(activation, gelu_keeps_relative_precision_in_its_tail) {
    auto const gelu = [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); };
    expect_elementwise(sweep, nn::gelu(sweep), gelu, 1e-5);
}

TEST(activation, gelu_tanh) {
    auto const gelu = [](double x) {
        double const u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
        return x / (1 + std::exp(-2 * u));
    };
    expect_elementwise(sweep, nn::gelu_tanh(sweep), gelu, 1e-5);
}

TEST(activation, relu) {
    expect_elementwise(
        sweep, nn::relu(sweep), [](double x) { return x > 0 ? x : 0; }, 0);
}

TEST(activation, extremes_stay_finite) {
    matrix const x{{-1e4F, -100.0F, -0.0F, 0.0F, 100.0F, 1e4F}};
    for (auto const kind :
         {nn::activation::silu, nn::activation::gelu, nn::activation::gelu_tanh, nn::activation::relu}) {
        matrix const y = nn::activate(kind, x);
        for (index_t j = 0; j < x.cols(); ++j) {
            EXPECT_NEAR(y(0, j), std::max(x(0, j), 0.0F), 1e-30) << x(0, j);
        }
    }
}

TEST(activation, activate_calls_the_function_named) {
    EXPECT_EQ(nn::activate(nn::activation::silu, sweep), nn::silu(sweep));
    EXPECT_EQ(nn::activate(nn::activation::gelu, sweep), nn::gelu(sweep));
    EXPECT_EQ(nn::activate(nn::activation::gelu_tanh, sweep), nn::gelu_tanh(sweep));
    EXPECT_EQ(nn::activate(nn::activation::relu, sweep), nn::relu(sweep));
}

TEST(activation, swiglu) {
    matrix const up = test::random_matrix(sweep.rows(), sweep.cols(), 1);
    matrix const y = nn::swiglu(sweep, up);
    matrix const expected = nn::silu(sweep).cwiseProduct(up);
    EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 1e-5F);
    // A view of part of a wider matrix, as after one product for gate and up.
    matrix const wide = test::random_matrix(5, 12, 2);
    EXPECT_EQ(nn::swiglu(wide.leftCols(6), wide.rightCols(6)),
              nn::swiglu(matrix(wide.leftCols(6)), matrix(wide.rightCols(6))));
}

} // namespace detent
