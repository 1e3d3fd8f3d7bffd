// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/products.hpp"

#include <gtest/gtest.h>

namespace detent {
namespace {

TEST(add_product, reads_matrices_blocks_and_transposes_of_both) {
    matrix const a = matrix::Random(45, 300), b = matrix::Random(300, 70);
    matrix const a_columns = a.transpose(), b_columns = b.transpose(); // (k, m) and (n, k)
    matrix const before = matrix::Random(50, 90);
    basic_matrix<double> expected = before.cast<double>();
    auto const to = [](auto&& c) { return c.block(3, 10, 45, 70); };
    to(expected) += a.cast<double>() * b.cast<double>();
    auto const check = [&](auto const& left, auto const& right) {
        matrix c = before;
        nn::add_product(to(c), left, right);
        EXPECT_LE((c.cast<double>() - expected).cwiseAbs().maxCoeff(), 1e-4);
    };
    check(a, b);
    check(a_columns.transpose(), b);
    check(a, b_columns.transpose());
    check(a_columns.transpose(), b_columns.transpose());
    matrix wide(45, 400);
    wide.middleCols(60, 300) = a;
    check(wide.middleCols(60, 300), matrix_view(b));
    matrix c = before;
    nn::add_product(to(c), a.leftCols(0), b.topRows(0)); // no terms
    EXPECT_EQ(c, before);
}

} // namespace
} // namespace detent
