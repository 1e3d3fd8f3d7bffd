// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/activation.hpp"
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

nn::activation const kinds[] = {nn::activation::silu,       nn::activation::gelu, nn::activation::gelu_tanh,
                                nn::activation::quick_gelu, nn::activation::relu, nn::activation::relu_squared,
                                nn::activation::tanh,       nn::activation::mish, nn::activation::identity};

/// The formulas of the enumeration, in double.
double slow(nn::activation kind, double x) {
    switch (kind) {
    case nn::activation::silu:
        return x / (1 + std::exp(-x));
    case nn::activation::gelu:
        return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case nn::activation::gelu_tanh:
        return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case nn::activation::quick_gelu:
        return x / (1 + std::exp(-1.702 * x));
    case nn::activation::relu:
        return x > 0 ? x : 0;
    case nn::activation::relu_squared:
        return x > 0 ? x * x : 0;
    case nn::activation::tanh:
        return std::tanh(x);
    case nn::activation::mish:
        return x * std::tanh(std::log1p(std::exp(x)));
    case nn::activation::identity:
        return x;
    }
    return 0;
}

/// What is small for large negative x, and x for large x.
bool is_gate(nn::activation kind) {
    return kind != nn::activation::relu_squared && kind != nn::activation::tanh && kind != nn::activation::identity;
}

} // namespace

TEST(activation, each_matches_its_formula_relative_to_the_answer) {
    for (auto const kind : kinds) {
        SCOPED_TRACE(static_cast<int>(kind));
        expect_elementwise(
            sweep, nn::activate(kind, sweep), [&](double x) { return slow(kind, x); }, 1e-5);
        expect_elementwise(
            sweep64, nn::activate(kind, sweep64), [&](double x) { return slow(kind, x); }, 2e-13);
    }
}

TEST(activation, names_are_those_of_configurations) {
    std::map<std::string, nn::activation> known;
    for (auto const& [name, kind] : nn::activation_names) {
        EXPECT_TRUE(known.emplace(name, kind).second) << name;
    }
    EXPECT_EQ(known.at("swish"), nn::activation::silu);
    EXPECT_EQ(known.at("gelu_new"), nn::activation::gelu_tanh);
    EXPECT_EQ(known.at("relu2"), nn::activation::relu_squared);
    EXPECT_EQ(known.count("gelu_10"), 0U);
}

TEST(activation, extremes_stay_finite) {
    matrix const x{{-1e4F, -100.0F, -0.0F, 0.0F, 100.0F, 1e4F}};
    for (auto const kind : kinds) {
        matrix const y = nn::activate(kind, x);
        for (index_t j = 0; j < x.cols(); ++j) {
            EXPECT_NEAR(y(0, j), is_gate(kind) ? std::max(x(0, j), 0.0F) : slow(kind, x(0, j)), 1e-30) << x(0, j);
        }
    }
}

TEST(activation, gates_match_the_product) {
    matrix const up = test::random_matrix(sweep.rows(), sweep.cols(), 1, 4.0F);
    for (auto const kind : kinds) {
        for (nn::gate_form const form : {nn::gate_form{kind, 0, 0}, {kind, 3, 0}, {kind, 0, 1}, {kind, 3, 1}}) {
            matrix const y = nn::gated(form, sweep, up);
            test::matrix64 const y64 = nn::gated(form, sweep64, up.cast<double>());
            for (index_t i = 0; i < y.size(); ++i) {
                double const bound = form.limit > 0 ? form.limit : 1e9;
                double const gate = std::min(sweep64.data()[i], bound);
                double const value =
                    slow(kind, gate) * (std::clamp<double>(up.data()[i], -bound, bound) + form.up_offset);
                EXPECT_NEAR(y64.data()[i], value, 1e-12 * (1 + std::abs(value)));
                EXPECT_NEAR(y.data()[i], value, 1e-5 * (1e-3 + std::abs(value)));
            }
        }
    }
    // A view of part of a wider matrix, as after one product for gate and up.
    matrix const wide = test::random_matrix(5, 12, 2);
    EXPECT_EQ(nn::gated({}, wide.leftCols(6), wide.rightCols(6)),
              nn::gated({}, matrix(wide.leftCols(6)), matrix(wide.rightCols(6))));
}

TEST(activation, gradients_match_finite_differences) {
    test::matrix64 const x = sweep64.array() + 0.003; // the bend of relu's bend lies between two entries
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
        if (is_gate(kind)) {
            matrix const gradient = nn::activate_backward(kind, x, g);
            float const middle = kind == nn::activation::relu ? 0.0F : kind == nn::activation::mish ? 1.8F : 1.5F;
            matrix const expected{{0.0F, 0.0F, middle, 3.0F, 3.0F}};
            EXPECT_LE((gradient - expected).cwiseAbs().maxCoeff(), 1e-6F) << gradient;
        }
    }
}

TEST(activation, gradients_of_gates_match_finite_differences) {
    for (auto const kind : kinds) {
        for (nn::gate_form const form : {nn::gate_form{kind, 0, 0}, {kind, 1.5, 1}}) {
            SCOPED_TRACE(static_cast<int>(kind));
            test::matrix64 gate = test::random_matrix64(67, 5, 6, 3.0F), up = test::random_matrix64(67, 5, 7, 2.0F);
            for (auto* const x : {&gate, &up}) { // away from the bends at 0 and at the limit
                for (double const bend : {0.0, 1.5, -1.5}) {
                    *x = x->unaryExpr([&](double v) { return std::abs(v - bend) < 0.01 ? v + 0.03 : v; });
                }
            }
            test::matrix64 const g = test::random_matrix64(67, 5, 8);
            auto const gradients = nn::gated_backward(form, gate, up, g);
            auto const loss = [&] { return test::weighted_sum(nn::gated(form, gate, up), g); };
            test::expect_gradient(gradients.gate, gate, loss);
            test::expect_gradient(gradients.up, up, loss);
            auto const floats =
                nn::gated_backward(form, matrix(gate.cast<float>()), matrix(up.cast<float>()), matrix(g.cast<float>()));
            test::expect_near(floats.gate, gradients.gate, 2e-6);
            test::expect_near(floats.up, gradients.up, 2e-6);
        }
    }
}

TEST(activation, no_tokens_have_no_gradients) {
    matrix const none(0, 5);
    for (auto const kind : kinds) {
        EXPECT_EQ(nn::activate_backward(kind, none, none), none);
    }
    EXPECT_EQ(nn::gated_backward({}, none, none, none).up, none);
}

TEST(activation, threads_do_not_change_a_bit_of_gradients) {
    matrix const x = test::random_matrix(300, 37, 9, 3.0F), g = test::random_matrix(300, 37, 10);
    for (index_t const count : {2, 3}) {
        thread_team one(1), more(count);
        for (auto const kind : kinds) {
            EXPECT_EQ(nn::activate_backward(kind, x, g, one), nn::activate_backward(kind, x, g, more));
        }
        auto const alone = nn::gated_backward({}, x, g, x, one), together = nn::gated_backward({}, x, g, x, more);
        EXPECT_EQ(alone.gate, together.gate);
        EXPECT_EQ(alone.up, together.up);
    }
}

} // namespace detent
