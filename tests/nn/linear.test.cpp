// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/linear.hpp"
#include "finite_differences.hpp"
#include "io/failure_message.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;
using test::random_vector;

namespace {

/// |y - (x w^T + bias)| <= tolerance * sum |x w| for every entry, the product in double.
void expect_product(matrix const& y, matrix const& x, matrix const& w, float_vector const& bias) {
    ASSERT_EQ(shape_of(y), (extents{x.rows(), w.rows()}));
    for (index_t t = 0; t < x.rows(); ++t) {
        for (index_t o = 0; o < w.rows(); ++o) {
            double sum = bias.size() > 0 ? double(bias(o)) : 0;
            double scale = std::abs(sum);
            for (index_t j = 0; j < x.cols(); ++j) {
                sum += double(x(t, j)) * w(o, j);
                scale += std::abs(double(x(t, j)) * w(o, j));
            }
            ASSERT_NEAR(y(t, o), sum, 2e-6 * scale) << t << ' ' << o;
        }
    }
}

} // namespace

TEST(linear, matches_the_slow_product_for_all_tails) {
    for (index_t const tokens : {1, 2, 7, 257}) {
        for (index_t const out : {1, 127, 129, 513}) {
            for (index_t const in : {1, 30, 33}) {
                matrix const x = random_matrix(tokens, in, 1);
                matrix const w = random_matrix(out, in, 2);
                float_vector const bias = random_vector(out, 3);
                expect_product(nn::linear(x, w), x, w, {});
                expect_product(nn::linear(x, w, bias), x, w, bias);
            }
        }
    }
}

TEST(linear, no_tokens_give_no_rows) {
    EXPECT_EQ(shape_of(nn::linear(matrix(0, 5), random_matrix(7, 5, 1))), (extents{0, 7}));
}

TEST(linear, gradients_match_finite_differences) {
    test::matrix64 x = test::random_matrix64(9, 7, 4), w = test::random_matrix64(5, 7, 5);
    test::vector64 bias = test::random_vector64(5, 6);
    test::matrix64 const g = test::random_matrix64(9, 5, 7);
    test::matrix64 w_gradient = test::matrix64::Zero(5, 7);
    test::vector64 bias_gradient = test::vector64::Zero(5);
    nn::add_linear_weight_gradient(g, x, w_gradient);
    nn::add_linear_bias_gradient(g, bias_gradient);
    auto const loss = [&] { return test::weighted_sum(nn::linear(x, w, bias), g); };
    test::expect_gradient(nn::linear_input_gradient(g, w), x, loss);
    test::expect_gradient(w_gradient, w, loss);
    test::expect_gradient(bias_gradient, bias, loss);
}

TEST(linear, gradients_match_the_slow_products_for_all_tails) {
    for (index_t const tokens : {1, 2, 7, 257}) {
        for (index_t const out : {1, 127, 257}) {
            for (index_t const in : {1, 30, 513}) {
                // Parts of wider matrices, as gradients and features often are.
                matrix const wide_g = random_matrix(tokens, out + 2, 8), wide_x = random_matrix(tokens, in + 3, 9);
                auto const g = wide_g.middleCols(1, out);
                auto const x = wide_x.middleCols(2, in);
                matrix const w = random_matrix(out, in, 10);
                expect_product(nn::linear_input_gradient(g, w), g, w.transpose(), {});

                // They are added to what is there, and to nothing beside it.
                float_vector const start = random_vector(in, 11);
                matrix wide_gradient = matrix::Constant(out, in + 1, 3.0F);
                wide_gradient.leftCols(in) = start.transpose().replicate(out, 1);
                nn::add_linear_weight_gradient(g, x, wide_gradient.leftCols(in));
                expect_product(wide_gradient.leftCols(in), g.transpose(), x.transpose(), start);
                EXPECT_EQ(wide_gradient.col(in), float_vector::Constant(out, 3.0F));

                float_vector bias_gradient = float_vector::Constant(out, 2.0F);
                nn::add_linear_bias_gradient(g, bias_gradient);
                expect_product(bias_gradient, g.transpose(), matrix::Ones(1, tokens), float_vector::Constant(1, 2.0F));
            }
        }
    }
}

TEST(linear, no_tokens_add_no_gradients) {
    matrix const w = random_matrix(7, 5, 12);
    EXPECT_EQ(nn::linear_input_gradient(matrix(0, 7), w), matrix(0, 5));
    matrix w_gradient = w;
    nn::add_linear_weight_gradient(matrix(0, 7), matrix(0, 5), w_gradient);
    EXPECT_EQ(w_gradient, w);
    float_vector const bias = random_vector(7, 13);
    float_vector bias_gradient = bias;
    nn::add_linear_bias_gradient(matrix(0, 7), bias_gradient);
    EXPECT_EQ(bias_gradient, bias);
}

TEST(linear, threads_do_not_change_a_bit) {
    matrix const w = random_matrix(1030, 300, 5);
    for (index_t const tokens : {1, 3, 600}) {
        matrix const x = random_matrix(tokens, 300, 4);
        thread_team one(1), three(3);
        EXPECT_EQ(nn::linear(x, w, {}, one), nn::linear(x, w, {}, three));
    }
}

TEST(linear, threads_do_not_change_a_bit_of_gradients) {
    matrix const w = random_matrix(600, 700, 14), start = random_matrix(600, 700, 15);
    for (index_t const tokens : {1, 3, 600}) {
        matrix const x = random_matrix(tokens, 700, 16), g = random_matrix(tokens, 600, 17);
        for (index_t const count : {2, 3}) {
            thread_team one(1), more(count);
            EXPECT_EQ(nn::linear_input_gradient(g, w, one), nn::linear_input_gradient(g, w, more));
            matrix weights1 = start, weights2 = start;
            nn::add_linear_weight_gradient(g, x, weights1, one);
            nn::add_linear_weight_gradient(g, x, weights2, more);
            EXPECT_EQ(weights1, weights2);
            float_vector bias1 = start.col(0), bias2 = bias1;
            nn::add_linear_bias_gradient(g, bias1, one);
            nn::add_linear_bias_gradient(g, bias2, more);
            EXPECT_EQ(bias1, bias2);
        }
    }
}

TEST(linear, shapes_that_do_not_fit_are_named) {
    matrix const x = random_matrix(3, 4, 1);
    matrix const w = random_matrix(5, 4, 2);
    EXPECT_EQ(failure_message([&] { nn::linear(x, w.leftCols(3)); }),
              "linear: has inputs or a bias that do not fit the weights");
    EXPECT_EQ(failure_message([&] { nn::linear(x, w, float_vector::Zero(4)); }),
              "linear: has inputs or a bias that do not fit the weights");
    EXPECT_EQ(failure_message([&] { nn::linear_input_gradient(x, w); }),
              "gradient: has not one column for each output");
}

} // namespace detent
