// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/gemm.hpp"
#include "detent/kernel/gemv.hpp"
#include "detent/kernel/multiply.hpp"
#include "detent/kernel/weak_columns.hpp"
#include "detent/pack/linear.hpp"
#include "kernel/products.hpp"
#include "matrix/random_weak.hpp"

namespace {

using namespace detent;
using namespace detent::test;

TEST(reference_dot, is_the_sum_over_weights_with_weak_columns) {
    for (float_format const format : all_formats) {
        expect_reference_sums_weights(weak_packed(int_grid<3>{}, {5, 19}, {2, 4}, 4, format));
    }
}

TEST(decode, writes_weak_columns) {
    for (float_format const format : all_formats) {
        packed_matrix const w = weak_packed(int_grid<3>{}, {4, 150}, {1, 32}, 20, format);
        for (index_t const begin : {0, 8, 64, 144}) {
            for (index_t const n : {index_t{1}, index_t{5}, 150 - begin}) {
                std::vector<float> out(static_cast<std::size_t>(n) + 1, -7);
                kernel::decode<3>(w.view(), 3, begin, n, out.data());
                for (index_t i = 0; i < n; ++i) {
                    ASSERT_EQ(out[static_cast<std::size_t>(i)], w.stored_at(3, begin + i)) << begin << ' ' << i;
                }
                ASSERT_EQ(out.back(), -7);
            }
        }
    }
}

TEST(add_weak, adds_the_products_of_weak_columns_alone) {
    for (float_format const format : all_formats) {
        for (index_t const rows : {1, 3, 8, 16, 17, 31, 64, 65, 131}) {
            packed_matrix const w = weak_packed(int_grid<4>{}, {rows, 40}, {1, 0}, 7, format);
            inputs const x(1, 40);
            std::vector<float> y(static_cast<std::size_t>(rows) + 1, 5);
            kernel::add_weak(w.view().weak, 0, rows, x.row(0), y.data());
            for (index_t r = 0; r < rows; ++r) {
                double expected = 5;
                double size = 5;
                for (index_t k = 0; k < 7; ++k) {
                    double const term = double{w.weak.at(k, r)} *
                                        x.row(0)[w.weak.columns()[static_cast<std::size_t>(k)]];
                    expected += term;
                    size += std::abs(term);
                }
                ASSERT_NEAR(y[static_cast<std::size_t>(r)], expected, 1e-6 * size) << rows << " rows, row " << r;
            }
            EXPECT_EQ(y.back(), 5);
        }
    }
}

TEST(add_weak, the_number_of_rows_at_a_time_changes_no_bit) {
    for (float_format const format : all_formats) {
        packed_matrix const w = weak_packed(int_grid<4>{}, {131, 40}, {1, 0}, 7, format);
        inputs const x(1, 40);
        std::vector<float> whole(131, 0.25F);
        auto pieces = whole;
        kernel::add_weak(w.view().weak, 0, 131, x.row(0), whole.data());
        for (index_t row = 0; row < 131; row += 5) {
            kernel::add_weak(w.view().weak, row, std::min<index_t>(131, row + 5), x.row(0), pieces.data());
        }
        EXPECT_EQ(pieces, whole);
    }
}

TEST(add_weak, without_weak_columns_changes_nothing) {
    std::vector<float> y{1, 2, 3};
    kernel::add_weak({}, 0, 3, nullptr, y.data());
    EXPECT_EQ(y, (std::vector<float>{1, 2, 3}));
}

TEST(gemv, matches_the_reference_with_weak_columns) {
    for (float_format const format : all_formats) {
        for (per_tile const tile : tiles) {
            for (index_t const cols : {1, 7, 130, 1100}) {
                for (index_t const tokens : {1, 3}) {
                    expect_product(gemv, weak_packed(int_grid<3>{}, {9, cols}, tile, 6, format), tokens);
                    expect_product(gemv, weak_packed(e2m1{}, {33, cols}, tile, 6, format), tokens);
                    ASSERT_FALSE(HasFatalFailure());
                }
            }
        }
    }
}

TEST(gemm, matches_the_reference_with_weak_columns) {
    for (float_format const format : all_formats) {
        for (per_tile const tile : tiles) {
            for (index_t const cols : {1, 7, 130, 600}) {
                expect_product(gemm, weak_packed(int_grid<3>{}, {9, cols}, tile, 6, format), 3);
                expect_product(gemm, weak_packed(e2m1{}, {33, cols}, tile, 6, format), 3);
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST(multiply, matches_the_reference_when_every_column_is_weak) {
    for (index_t const tokens : {1, 9, 17}) {
        expect_product(multiply, weak_packed(int_grid<4>{}, {131, 43}, {1, 16}, 43, float_format::bf16), tokens);
        ASSERT_FALSE(HasFatalFailure());
    }
}

TEST(multiply, threads_do_not_change_a_bit_of_weak_columns) {
    for (float_format const format : all_formats) {
        expect_threads_change_nothing(multiply, weak_packed(int_grid<4>{}, {150, 1100}, {1, 48}, 9, format));
    }
}

} // namespace
