// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/transform/smooth.hpp"
#include "detent/transform/transform.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"
#include "transform/factors_of.hpp"

namespace {

using namespace detent;

static_assert(Transform<smooth<>> && Transform<smooth<channel_size::root_mean_square>>);

/// Inputs (token, in) of different sizes; that of channel 3 is always 0.
matrix some_inputs() {
    matrix x = test::random_matrix(50, 12, 1);
    for (index_t k = 0; k < x.cols(); ++k) {
        x.col(k) *= std::exp2(static_cast<float>(k - 5));
    }
    x.col(3).setZero();
    return x;
}

/// Weights (out, in); column 5 is 0.
matrix some_weights() {
    matrix w = test::random_matrix(20, 12, 2);
    w.col(5).setZero();
    return w;
}

using test::factors_of;

/// s_j = size of input j^a / largest weight_j^(1 - a), straight from the equation in double.
double scale(double input, double weight, double exponent) {
    double const s = std::pow(std::max(input, 1e-5), exponent) / std::pow(std::max(weight, 1e-5), 1 - exponent);
    return std::max(s, 1e-5);
}

TEST(smooth, divides_by_the_scales_of_the_equation) {
    matrix const x = some_inputs();
    matrix const w = some_weights();
    layer_inputs const known = layer_inputs::of(x);
    for (float const exponent : {0.0F, 0.5F, 0.75F, 1.0F}) {
        auto const by_largest = factors_of(smooth<>{exponent}.fit(w, known));
        auto const by_square = factors_of(smooth<channel_size::root_mean_square>{exponent}.fit(w, known));
        ASSERT_EQ(by_largest.size(), 12U);
        ASSERT_EQ(by_square.size(), 12U);
        for (index_t k = 0; k < 12; ++k) {
            auto const largest = static_cast<double>(x.col(k).cwiseAbs().maxCoeff());
            double const mean = std::sqrt(static_cast<double>(x.col(k).squaredNorm()) / 50);
            auto const weight = static_cast<double>(w.col(k).cwiseAbs().maxCoeff());
            double const expected = 1 / scale(largest, weight, static_cast<double>(exponent));
            auto const i = static_cast<std::size_t>(k);
            EXPECT_NEAR(static_cast<double>(by_largest[i]), expected, 1e-5 * expected) << exponent << ' ' << k;
            double const of_mean = 1 / scale(mean, weight, static_cast<double>(exponent));
            EXPECT_NEAR(static_cast<double>(by_square[i]), of_mean, 1e-5 * of_mean) << exponent << ' ' << k;
        }
    }
}

TEST(smooth, makes_inputs_alike_with_exponent_1_and_weights_with_0) {
    matrix const x = some_inputs();
    matrix const w = some_weights();
    layer_inputs const known = layer_inputs::of(x);
    float_vector const inputs = smooth<>{1}.fit(w, known).apply(x).cwiseAbs().colwise().maxCoeff().transpose();
    float_vector const weights = smooth<>{0}.fit(w, known).of_weights(w).cwiseAbs().colwise().maxCoeff().transpose();
    for (index_t k = 0; k < 12; ++k) {
        EXPECT_NEAR(inputs(k), k == 3 ? 0 : 1, 1e-5F) << k; // the dead one stays dead
        EXPECT_NEAR(weights(k), k == 5 ? 0 : 1, 1e-5F) << k;
    }
}

TEST(smooth, keeps_the_function_of_the_layer) {
    matrix const x = some_inputs();
    matrix const w = some_weights();
    for (float const exponent : {0.0F, 0.5F, 1.0F}) {
        input_map const map = smooth<>{exponent}.fit(w, layer_inputs::of(x));
        matrix const y = map.apply(x) * map.of_weights(w).transpose();
        matrix const expected = x * w.transpose();
        EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff()) << exponent;
    }
}

TEST(smooth, refuses_what_it_cannot_do) {
    matrix const w = some_weights();
    layer_inputs const known = layer_inputs::of(some_inputs());
    layer_inputs const only_hessian(known.hessian());
    for (float const exponent : {-0.1F, 1.1F, std::numeric_limits<float>::quiet_NaN()}) {
        EXPECT_TRUE(contains(failure_message([&] { smooth<>{exponent}.fit(w, known); }), "smooth: its exponent is "));
    }
    EXPECT_EQ(failure_message([&] { smooth<>{}.fit(w, only_hessian); }),
              "smooth: needs the largest of each input, not only their Hessian");
    smooth<channel_size::root_mean_square> const by_square;
    EXPECT_EQ(by_square.fit(w, only_hessian), by_square.fit(w, known));
}

} // namespace
