// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/rope.hpp"

#include <cmath>

#include <gtest/gtest.h>

#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

TEST(rope, rotates_pairs_half_a_head_apart) {
    index_t const hd = 6, heads = 3, sequences = 2, length = 40, start = 5;
    nn::rope_table const table(hd, 10000.0, start + length);
    EXPECT_EQ(table.head_dim(), hd);
    EXPECT_EQ(table.max_positions(), start + length);
    matrix const x = random_matrix(sequences * length, heads * hd, 1);
    matrix y = x;
    table.apply(y, {.sequences = sequences, .start = start});
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
    nn::rope_table const table(32, 10000.0, 512);
    matrix const q = random_matrix(1, 32, 2), k = random_matrix(1, 32, 3);
    auto const product = [&](index_t i, index_t j) {
        matrix a = q, b = k;
        table.apply(a, {.start = i});
        table.apply(b, {.start = j});
        return a.row(0).dot(b.row(0));
    };
    EXPECT_NEAR(product(10, 3), product(507, 500), 1e-4);
    EXPECT_GT(std::abs(product(10, 3) - product(10, 4)), 1e-3);
}

TEST(rope, works_in_place_on_part_of_a_matrix) {
    nn::rope_table const table(4, 100.0, 8);
    matrix wide = random_matrix(8, 12, 4);
    matrix const before = wide;
    matrix part = wide.middleCols(4, 4);
    table.apply(part, {});
    table.apply(wide.middleCols(4, 4), {});
    EXPECT_EQ(wide.middleCols(4, 4), part);
    EXPECT_EQ(wide.leftCols(4), before.leftCols(4));
    EXPECT_EQ(wide.rightCols(4), before.rightCols(4));
}

TEST(rope, doubles_rotate_as_floats_do) {
    nn::rope_table const table(6, 10000.0, 50);
    test::matrix64 y = test::random_matrix64(80, 18, 5);
    matrix expected = y.cast<float>();
    table.apply(y, {.sequences = 2, .start = 5});
    table.apply(expected, {.sequences = 2, .start = 5});
    test::expect_near(expected, y, 2e-7);
}

TEST(rope, transposed_turns_gradients_back) {
    nn::rope_table const table(6, 10000.0, 50);
    nn::token_rows const rows{.sequences = 2, .start = 5};
    test::matrix64 x = test::random_matrix64(2 * 35, 18, 6);
    test::matrix64 const g = test::random_matrix64(2 * 35, 18, 7);
    test::matrix64 gradient = g;
    table.apply_transposed(gradient, rows);
    auto const loss = [&] {
        test::matrix64 y = x;
        table.apply(y, rows);
        return test::weighted_sum(y, g);
    };
    test::expect_gradient(gradient, x, loss);

    matrix gradient32 = g.cast<float>();
    table.apply_transposed(gradient32, rows);
    test::expect_near(gradient32, gradient, 2e-7);
    table.apply(gradient32, rows);
    test::expect_near(gradient32, g, 1e-6);
}

#if defined(_OPENMP)
TEST(rope, threads_do_not_change_a_bit) {
    nn::rope_table const table(6, 10000.0, 150);
    matrix const g = random_matrix(2 * 150, 18, 8);
    for (index_t const count : {2, 3}) {
        thread_team one(1), more(count);
        matrix alone = g, together = g;
        table.apply_transposed(alone, {.sequences = 2}, one);
        table.apply_transposed(together, {.sequences = 2}, more);
        EXPECT_EQ(alone, together);
    }
}
#endif

} // namespace detent
