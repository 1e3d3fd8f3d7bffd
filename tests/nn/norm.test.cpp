// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/norm.hpp"
#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::matrix64;
using test::random_matrix;
using test::random_vector;
using test::vector64;

TEST(norm, rms_norm_matches_its_formula) {
    for (index_t const features : {1, 3, 16, 257}) {
        matrix const x = random_matrix(67, features, 1, 3.0F);
        float_vector const weight = random_vector(features, 2);
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
        float_vector const weight = random_vector(features, 4);
        for (float_vector const& bias : {float_vector{}, random_vector(features, 5)}) {
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
                    // The mean of numbers near 100 is known to a few of their roundings, 100 * 2^-24 each.
                    EXPECT_NEAR(y(t, j), expected, 1e-5 * (1 + r * std::abs(weight(j)) * 5)) << features;
                }
            }
        }
    }
}

TEST(norm, features_are_scaled_each_by_its_own_number) {
    matrix const x = random_matrix(67, 5, 9);
    float_vector const weight = random_vector(5, 10);
    matrix const y = nn::scale_features(x, weight);
    matrix const g = random_matrix(67, 5, 11);
    float_vector slopes = float_vector::Zero(5);
    matrix const back = nn::scale_features_backward(x, weight, g, &slopes);
    for (index_t j = 0; j < 5; ++j) {
        double slope = 0;
        for (index_t t = 0; t < x.rows(); ++t) {
            EXPECT_EQ(y(t, j), x(t, j) * weight(j));
            EXPECT_EQ(back(t, j), g(t, j) * weight(j));
            slope += double(g(t, j)) * x(t, j);
        }
        EXPECT_NEAR(slopes(j), slope, 1e-5);
    }
}

TEST(norm, eps_keeps_constant_rows_finite) {
    matrix const zeros = matrix::Zero(2, 8);
    EXPECT_EQ(nn::rms_norm(zeros, float_vector::Ones(8), 1e-5F), zeros);
    EXPECT_EQ(nn::layer_norm(matrix::Constant(2, 8, 4.0F), float_vector::Ones(8), {}, 1e-5F), zeros);
}

TEST(norm, doubles_match_the_formulas) {
    matrix64 const x = test::random_matrix64(5, 33, 6, 3.0F);
    vector64 const weight = test::random_vector64(33, 7), bias = test::random_vector64(33, 8);
    matrix64 const rms = nn::rms_norm(x, weight, 1e-5), layer = nn::layer_norm(x, weight, bias, 1e-5);
    for (index_t t = 0; t < x.rows(); ++t) {
        double mean = 0, squares = 0, variance = 0;
        for (index_t j = 0; j < x.cols(); ++j) {
            mean += x(t, j) / 33;
            squares += x(t, j) * x(t, j) / 33;
        }
        for (index_t j = 0; j < x.cols(); ++j) {
            variance += (x(t, j) - mean) * (x(t, j) - mean) / 33;
        }
        for (index_t j = 0; j < x.cols(); ++j) {
            EXPECT_NEAR(rms(t, j), x(t, j) / std::sqrt(squares + 1e-5) * weight(j), 1e-13);
            EXPECT_NEAR(layer(t, j), (x(t, j) - mean) / std::sqrt(variance + 1e-5) * weight(j) + bias(j), 1e-13);
        }
    }
}

TEST(norm, rms_norm_gradients) {
    for (index_t const features : {1, 3, 16, 37}) {
        double const eps = 0.1; // large, so that a row of zeros is smooth enough for finite differences
        matrix64 x = test::random_matrix64(67, features, 9, 2.0F);
        x.row(65).setZero();
        vector64 weight = test::random_vector64(features, 10);
        matrix64 const g = test::random_matrix64(67, features, 11);
        vector64 const start = test::random_vector64(features, 12);
        vector64 weight_gradient = start;
        matrix64 const x_gradient = nn::rms_norm_backward(x, weight, eps, g, &weight_gradient);
        EXPECT_EQ(x_gradient, nn::rms_norm_backward(x, weight, eps, g));
        auto const loss = [&] { return test::weighted_sum(nn::rms_norm(x, weight, eps), g); };
        test::expect_gradient(x_gradient, x, loss);
        test::expect_gradient(vector64(weight_gradient - start), weight, loss);

        float_vector weight_gradient32 = start.cast<float>();
        test::expect_near(nn::rms_norm_backward(matrix(x.cast<float>()), weight.cast<float>(), 0.1F, g.cast<float>(),
                                                &weight_gradient32),
                          x_gradient, 2e-6);
        test::expect_near(weight_gradient32, weight_gradient, 1e-6);
    }
}

TEST(norm, layer_norm_gradients) {
    for (index_t const features : {2, 3, 16, 37}) {
        double const eps = 0.1;
        matrix64 x = test::random_matrix64(67, features, 13, 2.0F).array() + 4.0;
        x.row(65).setConstant(3.0);
        vector64 weight = test::random_vector64(features, 14), bias = test::random_vector64(features, 15);
        matrix64 const g = test::random_matrix64(67, features, 16);
        vector64 const start = test::random_vector64(features, 17);
        vector64 weight_gradient = start, bias_gradient = start, bias_alone = start;
        matrix64 const x_gradient = nn::layer_norm_backward(x, weight, eps, g, &weight_gradient, &bias_gradient);
        EXPECT_EQ(x_gradient, nn::layer_norm_backward(x, weight, eps, g, nullptr, &bias_alone));
        EXPECT_EQ(bias_alone, bias_gradient);
        auto const loss = [&] { return test::weighted_sum(nn::layer_norm(x, weight, bias, eps), g); };
        test::expect_gradient(x_gradient, x, loss);
        test::expect_gradient(vector64(weight_gradient - start), weight, loss);
        test::expect_gradient(vector64(bias_gradient - start), bias, loss);

        float_vector weight_gradient32 = start.cast<float>(), bias_gradient32 = weight_gradient32;
        test::expect_near(nn::layer_norm_backward(matrix(x.cast<float>()), weight.cast<float>(), 0.1F, g.cast<float>(),
                                                  &weight_gradient32, &bias_gradient32),
                          x_gradient, 5e-6);
        test::expect_near(weight_gradient32, weight_gradient, 2e-6);
        test::expect_near(bias_gradient32, bias_gradient, 1e-6);
    }
}

TEST(norm, without_a_weight) {
    matrix64 x = test::random_matrix64(67, 9, 21, 2.0F);
    matrix64 const g = test::random_matrix64(67, 9, 22);
    vector64 const ones = vector64::Ones(9), none;
    EXPECT_LE((nn::rms_norm(x, none, 0.1) - nn::rms_norm(x, ones, 0.1)).cwiseAbs().maxCoeff(), 1e-14);
    EXPECT_LE((nn::layer_norm(x, none, none, 0.1) - nn::layer_norm(x, ones, none, 0.1)).cwiseAbs().maxCoeff(), 1e-14);
    test::expect_gradient(nn::rms_norm_backward(x, none, 0.1, g), x,
                          [&] { return test::weighted_sum(nn::rms_norm(x, none, 0.1), g); });
    test::expect_gradient(nn::layer_norm_backward(x, none, 0.1, g), x,
                          [&] { return test::weighted_sum(nn::layer_norm(x, none, none, 0.1), g); });
}

TEST(norm, of_every_head_separately) {
    index_t const heads = 3, hd = 5, tokens = 70;
    matrix64 x = test::random_matrix64(tokens, heads * hd, 23, 2.0F);
    matrix64 const g = test::random_matrix64(tokens, heads * hd, 24);
    for (auto const kind : {nn::norm_kind::rms, nn::norm_kind::layer}) {
        for (index_t const size : {index_t{0}, hd, heads * hd}) { // none, shared by all heads, each head its own
            vector64 weight = test::random_vector64(size, 25);
            vector64 bias = kind == nn::norm_kind::layer ? test::random_vector64(size, 26) : vector64();
            matrix64 const y = nn::head_norm(kind, x, hd, weight, bias, 0.1);
            for (index_t h = 0; h < heads; ++h) {
                index_t const at = size > hd ? h * hd : 0;
                vector64 const w = size > 0 ? vector64(weight.segment(at, hd)) : weight;
                vector64 const b = bias.size() > 0 ? vector64(bias.segment(at, hd)) : bias;
                matrix64 const part = x.middleCols(h * hd, hd);
                EXPECT_EQ(y.middleCols(h * hd, hd),
                          kind == nn::norm_kind::rms ? nn::rms_norm(part, w, 0.1) : nn::layer_norm(part, w, b, 0.1));
            }
            vector64 weights = vector64::Ones(size), biases = vector64::Ones(bias.size()); // added to
            matrix64 const x_gradient = nn::head_norm_backward(kind, x, hd, weight, 0.1, g, &weights, &biases);
            auto const loss = [&] { return test::weighted_sum(nn::head_norm(kind, x, hd, weight, bias, 0.1), g); };
            test::expect_gradient(x_gradient, x, loss, 7);
            if (size > 0) {
                test::expect_gradient(vector64(weights.array() - 1), weight, loss);
            }
            if (bias.size() > 0) {
                test::expect_gradient(vector64(biases.array() - 1), bias, loss);
            }
        }
    }
    // A part of a wider matrix, as after one product for queries, keys and values.
    matrix64 const y = nn::head_norm(nn::norm_kind::rms, x.middleCols(hd, hd), hd, {}, {}, 0.1);
    EXPECT_EQ(y, nn::rms_norm(matrix64(x.middleCols(hd, hd)), {}, 0.1));
    EXPECT_EQ(nn::head_norm(nn::norm_kind::layer, matrix64(0, 10), 5, {}, {}, 0.1), matrix64(0, 10));
}

TEST(norm, no_tokens_add_no_gradients) {
    matrix const none(0, 5);
    float_vector weight_gradient = float_vector::Ones(5), bias_gradient = float_vector::Ones(5);
    EXPECT_EQ(nn::rms_norm_backward(none, float_vector::Ones(5), 1e-5F, none, &weight_gradient), none);
    EXPECT_EQ(nn::layer_norm_backward(none, float_vector::Ones(5), 1e-5F, none, &weight_gradient, &bias_gradient),
              none);
    EXPECT_EQ(weight_gradient, float_vector::Ones(5));
    EXPECT_EQ(bias_gradient, float_vector::Ones(5));
}

TEST(norm, threads_do_not_change_a_bit_of_gradients) {
    matrix const x = random_matrix(300, 600, 18), g = random_matrix(300, 600, 19);
    float_vector const weight = random_vector(600, 20);
    for (index_t const count : {2, 3}) {
        thread_team one(1), more(count);
        float_vector weights1 = weight, weights2 = weight, bias1 = weight, bias2 = weight;
        EXPECT_EQ(nn::rms_norm_backward(x, weight, 1e-5F, g, &weights1, one),
                  nn::rms_norm_backward(x, weight, 1e-5F, g, &weights2, more));
        EXPECT_EQ(nn::layer_norm_backward(x, weight, 1e-5F, g, &weights1, &bias1, one),
                  nn::layer_norm_backward(x, weight, 1e-5F, g, &weights2, &bias2, more));
        EXPECT_EQ(weights1, weights2);
        EXPECT_EQ(bias1, bias2);
    }
}

} // namespace detent
