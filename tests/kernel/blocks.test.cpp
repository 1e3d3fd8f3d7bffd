// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/blocks.hpp"
#include "detent/pack/linear.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

void all_blocks(packed_view const& w, inputs const& x, index_t tokens, float* y, index_t y_stride) {
    kernel::multiply_blocks(w, x.x.data(), x.stride, tokens, y, y_stride, input_format::f32, {});
}

/// The same for rows [first, last).
void blocks(packed_view const& w, index_t first, index_t last, inputs const& x, index_t tokens, float* y,
            index_t y_stride) {
    kernel::with_block_table(w, input_format::f32, [&]<class Table>(Table const& table, auto const& numbers) {
        auto const ordered = kernel::block_inputs<Table>::of(w, numbers, x.x.data(), x.stride, tokens);
        kernel::multiply_blocks(w, table, first, last, ordered, y, y_stride);
    });
}

/// Rows, the matrix, groups of eight and more columns, narrower and wider than a block, and blocks of rows.
constexpr per_tile tiles_of_lanes[] = {{1, 0}, {0, 0}, {1, 8}, {1, 16}, {1, 24}, {1, 120}, {1, 128}, {1, 136}, {3, 0},
                                       {2, 48}};

TEST(blocks, match_the_reference_for_every_width_and_tile) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : tiles_of_lanes) {
            for (index_t const cols : {1, 7, 8, 127, 128, 129, 300}) {
                with_bits(bits, [&]<int Bits> {
                    expect_product(all_blocks, random_packed(int_grid<Bits>{}, {9, cols}, tile), 3);
                    expect_product(all_blocks, random_packed(int_grid<Bits, zero::none>{}, {9, cols}, tile), 1);
                });
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST(blocks, match_the_reference_for_numbers_in_no_order) {
    for (per_tile const tile : {per_tile{1, 0}, {1, 32}, {1, 128}}) {
        for (index_t const cols : {130, 1100}) {
            expect_product(all_blocks, random_packed(e2m1{}, {5, cols}, tile), 1);
            expect_product(all_blocks, random_packed(nf4{}, {5, cols}, tile), 2);
            expect_product(all_blocks, random_packed(fp_grid<2, 2>{}, {5, cols}, tile), 2);
            expect_product(all_blocks, random_packed(fp_grid<3, 2>{}, {5, cols}, tile), 1);
            expect_product(all_blocks, random_packed(e4m3{}, {5, cols}, tile), 2);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(blocks, match_the_reference_for_all_tails_of_rows_and_tokens) {
    for (index_t const rows : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
        for (index_t tokens = 1; tokens <= 16; ++tokens) {
            expect_product(all_blocks, random_packed(int_grid<4>{}, {rows, 43}, {1, 16}), tokens);
            expect_product(all_blocks, random_packed(int_grid<3>{}, {rows, 200}, {1, 0}), tokens);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(blocks, match_the_reference_with_weak_columns) {
    for (float_format const format : {float_format::f16, float_format::bf16, float_format::f32}) {
        solution s = random_solution(int_grid<3>{}, {33, 600}, per_tile{1, 64}.tile({33, 600}), 1);
        weaken(s, int_grid<3>{}, random_columns(600, 6, 3), format);
        expect_product(all_blocks, pack(int_grid<3>{}, s), 3);
    }
}

TEST(blocks, write_only_their_rows) {
    packed_matrix const w = random_packed(int_grid<4>{}, {90, 20}, {1, 0});
    inputs const x(4, 20);
    std::vector<float> y(4 * 90, -7);
    blocks(w.view(), 3, 50, x, 4, y.data(), 90);
    for (index_t i = 0; i < 4 * 90; ++i) {
        index_t const row = i % 90;
        double const expected = row < 3 || row >= 50 ? -7 : kernel::reference_dot(w.view(), row, x.row(i / 90));
        EXPECT_NEAR(y[static_cast<std::size_t>(i)], expected, 1e-4) << row;
    }
}

TEST(blocks, the_number_of_rows_at_a_time_changes_no_bit) {
    packed_matrix const w = random_packed(int_grid<3>{}, {71, 1100}, {1, 48});
    for (index_t const tokens : {1, 5}) {
        inputs const x(tokens, 1100);
        auto const whole = run(all_blocks, w.view(), x, tokens);
        std::vector<float> y(whole.size(), -7);
        for (index_t row = 0; row < 71; row += 3) {
            blocks(w.view(), row, std::min<index_t>(71, row + 3), x, tokens, y.data(), 73);
        }
        EXPECT_EQ(y, whole);
    }
}

} // namespace
