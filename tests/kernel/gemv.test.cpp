// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/gemv.hpp"
#include "detent/pack/linear.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

TEST(gemv, matches_the_reference_for_every_width_and_tile) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : tiles) {
            for (index_t const cols : {1, 7, 8, 130}) {
                with_bits(bits, [&]<int Bits> {
                    expect_product(gemv, random_packed(int_grid<Bits>{}, {9, cols}, tile), 3);
                    expect_product(gemv, random_packed(int_grid<Bits, zero::none>{}, {9, cols}, tile), 3);
                });
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST(gemv, matches_the_reference_around_the_depth_it_decodes_at_a_time) {
    for (index_t const cols : {1023, 1024, 1025, 2100}) {
        for (per_tile const tile : tiles) {
            expect_product(gemv, random_packed(int_grid<3>{}, {5, cols}, tile), 3);
            expect_product(gemv, random_packed(e2m1{}, {5, cols}, tile), 1);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(gemv, matches_the_reference_for_all_tails_of_rows_and_tokens) {
    for (index_t const rows : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
        for (index_t const tokens : {1, 2, 3, 9}) {
            expect_product(gemv, random_packed(int_grid<4>{}, {rows, 43}, {1, 16}), tokens);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(gemv, writes_only_its_rows) {
    packed_matrix const w = random_packed(int_grid<4>{}, {90, 20}, {1, 0});
    inputs const x(4, 20);
    std::vector<float> y(4 * 90, -7);
    kernel::gemv<4>(w.view(), 3, 50, x.x.data(), x.stride, 4, y.data(), 90);
    for (index_t i = 0; i < 4 * 90; ++i) {
        index_t const row = i % 90;
        double const expected = row < 3 || row >= 50 ? -7 : kernel::reference_dot(w.view(), row, x.row(i / 90));
        EXPECT_NEAR(y[static_cast<std::size_t>(i)], expected, 1e-4) << row;
    }
}

TEST(gemv, the_number_of_rows_at_a_time_changes_no_bit) {
    packed_matrix const w = random_packed(int_grid<3>{}, {71, 1100}, {1, 48});
    for (index_t const tokens : {1, 5}) {
        inputs const x(tokens, 1100);
        auto const whole = run(gemv, w.view(), x, tokens);
        std::vector<float> y(whole.size(), -7);
        for (index_t row = 0; row < 71; row += 3) {
            kernel::gemv<3>(w.view(), row, std::min<index_t>(71, row + 3), x.x.data(), x.stride, tokens, y.data(), 73);
        }
        EXPECT_EQ(y, whole);
    }
}

} // namespace
