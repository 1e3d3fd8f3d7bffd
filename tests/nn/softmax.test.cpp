// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/softmax.hpp"
#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

namespace {

std::vector<nn::token_id> some_tokens(index_t count, index_t vocabulary) {
    std::vector<nn::token_id> tokens;
    for (index_t t = 0; t < count; ++t) {
        tokens.push_back(static_cast<nn::token_id>((t * t + 3) % vocabulary));
    }
    return tokens;
}

template <class Scalar> double slow_log_sum_exp(basic_matrix<Scalar> const& x, index_t r) {
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
    std::vector<nn::token_id> const tokens = some_tokens(sequences * length, vocabulary);
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

TEST(softmax, doubles_match_their_formulas) {
    test::matrix64 const x = test::random_matrix64(70, 2100, 3, 3.0F);
    test::matrix64 const y = nn::softmax(x);
    for (index_t r = 0; r < x.rows(); ++r) {
        EXPECT_NEAR(nn::log_sum_exp(x, r), slow_log_sum_exp(x, r), 1e-12);
        for (index_t c = 0; c < x.cols(); c += 11) {
            double const expected = std::exp(x(r, c) - slow_log_sum_exp(x, r));
            EXPECT_NEAR(y(r, c), expected, 1e-12 * expected);
        }
    }
}

TEST(softmax, next_token_gradient_matches_finite_differences) {
    for (index_t const sequences : {1, 3}) {
        index_t const length = 23, vocabulary = 19;
        test::matrix64 logits = test::random_matrix64(sequences * length, vocabulary, 4, 2.0F);
        std::vector<nn::token_id> const tokens = some_tokens(sequences * length, vocabulary);
        double const factor = 0.25;
        test::matrix64 const gradient = nn::next_token_gradient(logits, tokens, sequences, factor);
        auto const loss = [&] { return factor * nn::next_token_loss(logits, tokens, sequences); };
        test::expect_gradient(gradient, logits, loss);
        for (index_t s = 0; s < sequences; ++s) {
            EXPECT_TRUE(gradient.row((s + 1) * length - 1).isZero(0));
        }
    }
}

TEST(softmax, next_token_gradient_of_a_large_vocabulary) {
    index_t const sequences = 2, length = 5, vocabulary = 5000; // longer than one run of a sum, and ragged
    matrix logits = random_matrix(sequences * length, vocabulary, 5, 4.0F);
    logits(3, 4321) = 1000.0F; // exp overflows
    std::vector<nn::token_id> const tokens = some_tokens(sequences * length, vocabulary);
    matrix const gradient = nn::next_token_gradient(logits, tokens, sequences, 2.0);
    for (index_t t = 0; t < logits.rows(); ++t) {
        double const log_sum = nn::log_sum_exp(test::matrix64(logits.cast<double>()), t);
        for (index_t c = 0; c < vocabulary; ++c) {
            bool const last = t % length == length - 1;
            bool const hot = !last && c == tokens[static_cast<std::size_t>(t + 1)];
            double const expected = last ? 0 : 2 * (std::exp(logits(t, c) - log_sum) - (hot ? 1 : 0));
            EXPECT_NEAR(gradient(t, c), expected, 2e-6 * std::abs(expected) + 1e-30) << t << ' ' << c;
        }
    }
}

TEST(softmax, threads_do_not_change_a_bit) {
    matrix const logits = random_matrix(200, 1500, 6);
    std::vector<nn::token_id> const tokens = some_tokens(200, 1500);
    for (index_t const count : {2, 3}) {
        thread_team one(1), more(count);
        EXPECT_EQ(nn::next_token_loss(logits, tokens, 2, one), nn::next_token_loss(logits, tokens, 2, more));
        EXPECT_EQ(nn::next_token_gradient(logits, tokens, 2, 0.1, one),
                  nn::next_token_gradient(logits, tokens, 2, 0.1, more));
    }
}

} // namespace detent
