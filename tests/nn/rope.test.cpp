// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/rope.hpp"
#include "detent/nn/rotary_law.hpp"
#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

TEST(rope, rotates_pairs_half_a_head_apart) {
    index_t const hd = 6, heads = 3, sequences = 2, length = 40, start = 5;
    nn::rotary const rope(nn::plain_frequencies(10000.0, hd));
    EXPECT_EQ(rope.dimensions(), hd);
    nn::rotation const table = rope.at(start, length);
    matrix const x = random_matrix(sequences * length, heads * hd, 1);
    matrix y = x;
    table.apply(y, hd, {.sequences = sequences, .start = start});
    for (index_t t = 0; t < x.rows(); ++t) {
        double const position = double(start + t % length);
        for (index_t h = 0; h < heads; ++h) {
            for (index_t i = 0; i < hd / 2; ++i) {
                double const angle = position * std::pow(10000.0, -2.0 * double(i) / double(hd));
                double const x1 = x(t, h * hd + i), x2 = x(t, h * hd + i + hd / 2);
                EXPECT_NEAR(y(t, h * hd + i), x1 * std::cos(angle) - x2 * std::sin(angle), 1e-6);
                EXPECT_NEAR(y(t, h * hd + i + hd / 2), x2 * std::cos(angle) + x1 * std::sin(angle), 1e-6);
            }
        }
    }
}

TEST(rope, products_depend_on_the_distance_only) {
    nn::rotation const table = nn::rotary(nn::plain_frequencies(10000.0, 32)).at(0, 512);
    matrix const q = random_matrix(1, 32, 2), k = random_matrix(1, 32, 3);
    auto const product = [&](index_t i, index_t j) {
        matrix a = q, b = k;
        table.apply(a, 32, {.start = i});
        table.apply(b, 32, {.start = j});
        return a.row(0).dot(b.row(0));
    };
    EXPECT_NEAR(product(10, 3), product(507, 500), 1e-4);
    EXPECT_GT(std::abs(product(10, 3) - product(10, 4)), 1e-3);
}

TEST(rope, works_in_place_on_part_of_a_matrix) {
    nn::rotation const table = nn::rotary(nn::plain_frequencies(100.0, 4)).at(0, 8);
    matrix wide = random_matrix(8, 12, 4);
    matrix const before = wide;
    matrix part = wide.middleCols(4, 4);
    table.apply(part, 4, {});
    table.apply(wide.middleCols(4, 4), 4, {});
    EXPECT_EQ(wide.middleCols(4, 4), part);
    EXPECT_EQ(wide.leftCols(4), before.leftCols(4));
    EXPECT_EQ(wide.rightCols(4), before.rightCols(4));
}

TEST(rope, doubles_rotate_as_floats_do) {
    nn::rotation const table = nn::rotary(nn::plain_frequencies(10000.0, 6)).at(0, 50);
    test::matrix64 y = test::random_matrix64(80, 18, 5);
    matrix expected = y.cast<float>();
    table.apply(y, 6, {.sequences = 2, .start = 5});
    table.apply(expected, 6, {.sequences = 2, .start = 5});
    test::expect_near(expected, y, 2e-7);
}

TEST(rope, transposed_turns_gradients_back) {
    nn::rotation const table = nn::rotary(nn::plain_frequencies(10000.0, 6)).at(0, 50);
    nn::token_rows const rows{.sequences = 2, .start = 5};
    test::matrix64 x = test::random_matrix64(2 * 35, 18, 6);
    test::matrix64 const g = test::random_matrix64(2 * 35, 18, 7);
    test::matrix64 gradient = g;
    table.apply_transposed(gradient, 6, rows);
    auto const loss = [&] {
        test::matrix64 y = x;
        table.apply(y, 6, rows);
        return test::weighted_sum(y, g);
    };
    test::expect_gradient(gradient, x, loss);

    matrix gradient32 = g.cast<float>();
    table.apply_transposed(gradient32, 6, rows);
    test::expect_near(gradient32, gradient, 2e-7);
    table.apply(gradient32, 6, rows);
    test::expect_near(gradient32, g, 1e-6);
}

TEST(rope, interleaved_partial_and_scaled) {
    nn::token_rows const rows{.sequences = 2, .start = 7};
    test::matrix64 x = test::random_matrix64(2 * 9, 2 * 10, 9);
    for (bool const interleaved : {false, true}) {
        nn::rotary const rope({1.0, 0.3, 0.01}, interleaved, 1.25);
        nn::rotation const rotation = rope.at(5, 11);
        test::matrix64 y = x;
        rotation.apply(y, 10, rows);
        for (index_t t = 0; t < x.rows(); ++t) {
            for (index_t h = 0; h < 2; ++h) {
                for (index_t i = 0; i < 3; ++i) {
                    index_t const a = h * 10 + (interleaved ? 2 * i : i), b = interleaved ? a + 1 : a + 3;
                    double const angle = double(7 + t % 9) * rope.frequencies()[static_cast<std::size_t>(i)];
                    EXPECT_NEAR(y(t, a), 1.25 * (x(t, a) * std::cos(angle) - x(t, b) * std::sin(angle)), 1e-6);
                    EXPECT_NEAR(y(t, b), 1.25 * (x(t, b) * std::cos(angle) + x(t, a) * std::sin(angle)), 1e-6);
                }
            }
        }
        for (index_t const h : {0, 1}) { // the rest of each head
            EXPECT_EQ(y.middleCols(h * 10 + 6, 4), x.middleCols(h * 10 + 6, 4));
        }
        test::matrix64 const g = test::random_matrix64(2 * 9, 2 * 10, 10);
        test::matrix64 gradient = g;
        rotation.apply_transposed(gradient, 10, rows);
        auto const loss = [&] {
            test::matrix64 z = x;
            rotation.apply(z, 10, rows);
            return test::weighted_sum(z, g);
        };
        test::expect_gradient(gradient, x, loss);
    }
}

TEST(rope, any_part_of_the_positions_has_the_same_bits) {
    nn::rotary const rope(nn::plain_frequencies(10000.0, 8));
    matrix const x = random_matrix(1, 16, 11);
    matrix a = x, b = x;
    rope.at(0, 1000).apply(a, 8, {.start = 777});
    rope.at(777, 1).apply(b, 8, {.start = 777});
    EXPECT_EQ(a, b);
    matrix none(0, 16);
    rope.at(0, 0).apply(none, 8, {});
}

TEST(rope, threads_do_not_change_a_bit) {
    nn::rotation const table = nn::rotary(nn::plain_frequencies(10000.0, 6)).at(0, 150);
    matrix const g = random_matrix(2 * 150, 18, 8);
    for (index_t const count : {2, 3}) {
        thread_team one(1), more(count);
        matrix alone = g, together = g;
        table.apply_transposed(alone, 6, {.sequences = 2}, one);
        table.apply_transposed(together, 6, {.sequences = 2}, more);
        EXPECT_EQ(alone, together);
    }
}

} // namespace detent
