// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/linear.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;
using test::random_vector;

namespace {

/// |y - (x w^T + bias)| <= tolerance * sum |x w| for every entry, the product in double.
void expect_product(matrix const& y, matrix const& x, matrix const& w, vector const& bias) {
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
                vector const bias = random_vector(out, 3);
                expect_product(nn::linear(x, w), x, w, {});
                expect_product(nn::linear(x, w, bias), x, w, bias);
            }
        }
    }
}

TEST(linear, no_tokens_give_no_rows) {
    EXPECT_EQ(shape_of(nn::linear(matrix(0, 5), random_matrix(7, 5, 1))), (extents{0, 7}));
}

#if defined(_OPENMP)
TEST(linear, threads_do_not_change_a_bit) {
    matrix const w = random_matrix(1030, 300, 5);
    for (index_t const tokens : {1, 3, 600}) {
        matrix const x = random_matrix(tokens, 300, 4);
        threads one(1), three(3);
        EXPECT_EQ(nn::linear(x, w, {}, one), nn::linear(x, w, {}, three));
    }
}
#endif

} // namespace detent
