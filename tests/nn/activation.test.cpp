// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/activation.hpp"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

namespace {

/// Compares `y` with `f` of every entry of `x`, relative to the answer.
template <class Scalar, class F>
void expect_elementwise(basic_matrix<Scalar> const& x, basic_matrix<Scalar> const& y, F const& f, double tolerance) {
    for (index_t r = 0; r < x.rows(); ++r) {
        for (index_t c = 0; c < x.cols(); ++c) {
            double const expected = f(double(x(r, c)));
            EXPECT_NEAR(y(r, c), expected, tolerance * std::abs(expected)) << "at " << x(r, c);
        }
    }
}

/// -8 .. 8 in 65 rows (more than one piece) of 37 columns (a tail for every vector width).
matrix const sweep = float_vector::LinSpaced(65 * 37, -8.0F, 8.0F).reshaped<Eigen::RowMajor>(65, 37);
test::matrix64 const sweep64 = sweep.cast<double>();

nn::activation const kinds[] = {nn::activation::silu, nn::activation::gelu, nn::activation::gelu_tanh,
                                nn::activation::relu};

} // namespace

TEST(activation, silu) {
    auto const silu = [](double x) { return x / (1 + std::exp(-x)); };
    expect_elementwise(sweep, nn::silu(sweep), silu, 1e-6);
    expect_elementwise(sweep64, nn::silu(sweep64), silu, 1e-13);
}

TEST(activation, gelu_keeps_relative_precision_in_its_tail) {
    auto const gelu = [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); };
    expect_elementwise(sweep, nn::gelu(sweep), gelu, 1e-5);
    expect_elementwise(sweep64, nn::gelu(sweep64), gelu, 1e-13);
}

TEST(activation, gelu_tanh) {
    auto const gelu = [](double x) {
        double const u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
        return x / (1 + std::exp(-2 * u));
    };
    expect_elementwise(sweep, nn::gelu_tanh(sweep), gelu, 1e-5);
    expect_elementwise(sweep64, nn::gelu_tanh(sweep64), gelu, 1e-13);
}

TEST(activation, relu) {
    auto const relu = [](double x) { return x > 0 ? x : 0; };
    expect_elementwise(sweep, nn::relu(sweep), relu, 0);
    expect_elementwise(sweep64, nn::relu(sweep64), relu, 0);
}

TEST(activation, extremes_stay_finite) {
    matrix const x{{-1e4F, -100.0F, -0.0F, 0.0F, 100.0F, 1e4F}};
    for (auto const kind : kinds) {
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

TEST(activation, gradients_match_finite_differences) {
    test::matrix64 const x = sweep64.array() + 0.003; // relu's bend lies between two entries
    test::matrix64 const g = test::random_matrix64(x.rows(), x.cols(), 3);
    double const h = 1e-3;
    for (auto const kind : kinds) {
        auto const at = [&](double change) { return nn::activate(kind, test::matrix64(x.array() + change)); };
        test::matrix64 const slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
        test::matrix64 const gradient = nn::activate_backward(kind, x, g);
        for (index_t i = 0; i < x.size(); ++i) {
            double const expected = slope.data()[i] * g.data()[i];
            double const tolerance = 1e-6 * std::max(std::abs(expected), 1e-3 * std::abs(g.data()[i]));
            EXPECT_NEAR(gradient.data()[i], expected, tolerance) << static_cast<int>(kind) << ' ' << x.data()[i];
        }
    }
}

TEST(activation, float_gradients_match_those_in_double) {
    matrix const g = test::random_matrix(sweep.rows(), sweep.cols(), 4);
    for (auto const kind : kinds) {
        matrix const gradient = nn::activate_backward(kind, sweep, g);
        test::matrix64 const expected = nn::activate_backward(kind, sweep64, g.cast<double>());
        for (index_t i = 0; i < g.size(); ++i) {
            EXPECT_NEAR(gradient.data()[i], expected.data()[i], 2e-6 * std::abs(g.data()[i])) << sweep.data()[i];
        }
    }
}

TEST(activation, gradients_of_extremes_are_steps) {
    matrix const x{{-1e4F, -100.0F, 0.0F, 100.0F, 1e4F}};
    matrix const g{{3.0F, 3.0F, 3.0F, 3.0F, 3.0F}};
    for (auto const kind : kinds) {
        matrix const gradient = nn::activate_backward(kind, x, g);
        matrix const expected{{0.0F, 0.0F, kind == nn::activation::relu ? 0.0F : 1.5F, 3.0F, 3.0F}};
        EXPECT_LE((gradient - expected).cwiseAbs().maxCoeff(), 1e-6F) << gradient;
    }
}

TEST(activation, activate_backward_calls_the_function_named) {
    matrix const g = test::random_matrix(sweep.rows(), sweep.cols(), 5);
    EXPECT_EQ(nn::activate_backward(nn::activation::silu, sweep, g), nn::silu_backward(sweep, g));
    EXPECT_EQ(nn::activate_backward(nn::activation::gelu, sweep, g), nn::gelu_backward(sweep, g));
    EXPECT_EQ(nn::activate_backward(nn::activation::gelu_tanh, sweep, g), nn::gelu_tanh_backward(sweep, g));
    EXPECT_EQ(nn::activate_backward(nn::activation::relu, sweep, g), nn::relu_backward(sweep, g));
}

TEST(activation, swiglu_gradients) {
    test::matrix64 gate = test::random_matrix64(67, 5, 6, 3.0F), up = test::random_matrix64(67, 5, 7);
    test::matrix64 const g = test::random_matrix64(67, 5, 8);
    auto const gradients = nn::swiglu_backward(gate, up, g);
    auto const loss = [&] { return test::weighted_sum(nn::swiglu(gate, up), g); };
    test::expect_gradient(gradients.gate, gate, loss);
    test::expect_gradient(gradients.up, up, loss);

    auto const floats =
        nn::swiglu_backward(matrix(gate.cast<float>()), matrix(up.cast<float>()), matrix(g.cast<float>()));
    test::expect_near(floats.gate, gradients.gate, 1e-6);
    test::expect_near(floats.up, gradients.up, 1e-6);
}

TEST(activation, no_tokens_have_no_gradients) {
    matrix const none(0, 5);
    for (auto const kind : kinds) {
        EXPECT_EQ(nn::activate_backward(kind, none, none), none);
    }
    EXPECT_EQ(nn::swiglu_backward(none, none, none).up, none);
}

#if defined(_OPENMP)
TEST(activation, threads_do_not_change_a_bit_of_gradients) {
    matrix const x = test::random_matrix(300, 37, 9, 3.0F), g = test::random_matrix(300, 37, 10);
    for (index_t const count : {2, 3}) {
        thread_team one(1), more(count);
        for (auto const kind : kinds) {
            EXPECT_EQ(nn::activate_backward(kind, x, g, one), nn::activate_backward(kind, x, g, more));
        }
        auto const alone = nn::swiglu_backward(x, g, x, one), together = nn::swiglu_backward(x, g, x, more);
        EXPECT_EQ(alone.gate, together.gate);
        EXPECT_EQ(alone.up, together.up);
    }
}
#endif

} // namespace detent
