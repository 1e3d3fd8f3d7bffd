// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/norm.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;
using test::random_vector;

TEST(norm, rms_norm_matches_its_formula) {
    for (index_t const features : {1, 3, 16, 257}) {
        matrix const x = random_matrix(67, features, 1, 3.0F);
        vector const weight = random_vector(features, 2);
        matrix const y = nn::rms_norm(x, weight, 1e-5F);
        for (index_t t = 0; t < x.rows(); ++t) {
            double squares = 0;
            for (index_t j = 0; j < features; ++j) {
                squares += double(x(t, j)) * x(t, j);
            }
            double const r = 1 / std::sqrt(squares / double(features) + double(1e-5F));
            for (index_t j = 0; j < features; ++j) {
                double const expected = x(t, j) * r * weight(j);
                EXPECT_NEAR(y(t, j), expected, 2e-6 * std::abs(expected));
            }
        }
    }
}

TEST(norm, layer_norm_matches_its_formula_with_a_large_mean) {
    for (index_t const features : {2, 3, 16, 257}) {
        matrix const x = random_matrix(67, features, 3).array() + 100.0F;
        vector const weight = random_vector(features, 4);
        for (vector const& bias : {vector{}, random_vector(features, 5)}) {
            matrix const y = nn::layer_norm(x, weight, bias, 1e-5F);
            for (index_t t = 0; t < x.rows(); ++t) {
                double mean = 0;
                double variance = 0;
                for (index_t j = 0; j < features; ++j) {
                    mean += x(t, j) / double(features);
                }
                for (index_t j = 0; j < features; ++j) {
                    variance += (x(t, j) - mean) * (x(t, j) - mean) / double(features);
                }
                double const r = 1 / std::sqrt(variance + double(1e-5F));
                for (index_t j = 0; j < features; ++j) {
                    double const expected = (x(t, j) - mean) * r * weight(j) + (bias.size() > 0 ? double(bias(j)) : 0);
                    // The mean of numbers near 100 is known to their rounding, 100 * 2^-24, at best.
                    EXPECT_NEAR(y(t, j), expected, 1e-5 * (1 + r * std::abs(weight(j)) * 2)) << features;
                }
            }
        }
    }
}

TEST(norm, eps_keeps_constant_rows_finite) {
    matrix const zeros = matrix::Zero(2, 8);
    EXPECT_EQ(nn::rms_norm(zeros, vector::Ones(8), 1e-5F), zeros);
    EXPECT_EQ(nn::layer_norm(matrix::Constant(2, 8, 4.0F), vector::Ones(8), {}, 1e-5F), zeros);
}

} // namespace detent
