// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/gemm.hpp"
#include "detent/pack/linear.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

TEST(gemm, matches_the_reference_for_every_width_and_tile) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : tiles) {
            for (index_t const cols : {1, 7, 8, 130}) {
                with_bits(bits, [&]<int Bits> {
                    expect_product(gemm, random_packed(int_grid<Bits>{}, {9, cols}, tile), 3);
                    expect_product(gemm, random_packed(int_grid<Bits, zero::none>{}, {9, cols}, tile), 3);
                });
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST(gemm, matches_the_reference_around_the_depth_it_decodes_at_a_time) {
    for (index_t const cols : {255, 256, 257, 530}) {
        for (per_tile const tile : tiles) {
            expect_product(gemm, random_packed(int_grid<3>{}, {5, cols}, tile), 3);
            expect_product(gemm, random_packed(e2m1{}, {5, cols}, tile), 1);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(gemm, matches_the_reference_for_all_tails_of_rows_and_tokens) {
    for (index_t const rows : {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70}) {
        for (index_t const tokens : {1, 2, 5, 6, 7, 8, 9, 15, 17, 65}) {
            expect_product(gemm, random_packed(int_grid<4>{}, {rows, 43}, {1, 16}), tokens);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(gemm, writes_only_its_rows) {
    packed_matrix const w = random_packed(int_grid<4>{}, {90, 20}, {1, 0});
    inputs const x(4, 20);
    std::vector<float> y(4 * 90, -7);
    kernel::gemm<4>(w.view(), 3, 50, x.x.data(), x.stride, 4, y.data(), 90);
    for (index_t i = 0; i < 4 * 90; ++i) {
        index_t const row = i % 90;
        double const expected = row < 3 || row >= 50 ? -7 : kernel::reference_dot(w.view(), row, x.row(i / 90));
        EXPECT_NEAR(y[static_cast<std::size_t>(i)], expected, 1e-4) << row;
    }
}

TEST(gemm, a_token_gets_the_same_bits_alone_and_in_a_batch) {
    packed_matrix const w = random_packed(int_grid<3>{}, {71, 1100}, {1, 48});
    inputs const x(19, 1100);
    auto const batch = run(gemm, w.view(), x, 19);
    for (index_t token = 0; token < 19; ++token) {
        std::vector<float> y(71);
        kernel::gemm<3>(w.view(), 0, 71, x.row(token), x.stride, 1, y.data(), 71);
        for (index_t r = 0; r < 71; ++r) {
            ASSERT_EQ(y[static_cast<std::size_t>(r)], batch[static_cast<std::size_t>(token * 73 + r)]) << token;
        }
    }
}

} // namespace
