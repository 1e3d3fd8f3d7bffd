// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/softmax.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

namespace {

double slow_log_sum_exp(matrix const& x, index_t r) {
    double sum = 0;
    for (index_t c = 0; c < x.cols(); ++c) {
        sum += std::exp(double(x(r, c)));
    }
    return std::log(sum);
}

} // namespace

TEST(softmax, rows_match_their_formula) {
    for (index_t const cols : {1, 5, 16, 300}) {
        matrix const x = random_matrix(70, cols, 1, 3.0F);
        matrix const y = nn::softmax(x);
        for (index_t r = 0; r < x.rows(); ++r) {
            for (index_t c = 0; c < cols; ++c) {
                double const expected = std::exp(x(r, c) - slow_log_sum_exp(x, r));
                EXPECT_NEAR(y(r, c), expected, 3e-6 * expected);
            }
        }
    }
}

TEST(softmax, large_entries_do_not_overflow) {
    matrix const x{{1000.0F, 1000.0F, -1000.0F}};
    matrix const y = nn::softmax(x);
    EXPECT_FLOAT_EQ(y(0, 0), 0.5F);
    EXPECT_FLOAT_EQ(y(0, 1), 0.5F);
    EXPECT_NEAR(y(0, 2), 0.0F, 1e-30);
    EXPECT_NEAR(nn::log_sum_exp(x, 0), 1000 + std::log(2.0), 1e-4);
}

TEST(softmax, next_token_loss_skips_the_last_row_of_each_sequence) {
    index_t const sequences = 3, length = 41, vocabulary = 19;
    matrix const logits = random_matrix(sequences * length, vocabulary, 2, 2.0F);
    std::vector<nn::token_id> tokens;
    for (index_t t = 0; t < sequences * length; ++t) {
        tokens.push_back(static_cast<nn::token_id>((t * t + 3) % vocabulary));
    }
    double expected = 0;
    for (index_t s = 0; s < sequences; ++s) {
        for (index_t i = 0; i + 1 < length; ++i) {
            index_t const row = s * length + i;
            expected += slow_log_sum_exp(logits, row) - logits(row, tokens[static_cast<std::size_t>(row + 1)]);
        }
    }
    EXPECT_NEAR(nn::next_token_loss(logits, tokens, sequences), expected, 1e-6 * expected);
    EXPECT_EQ(nn::next_token_loss(logits.topRows(1), std::vector<nn::token_id>{0}), 0.0);
}

} // namespace detent
