// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
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
    matrix_product const product{w, y, y_stride};
    kernel::multiply_blocks({&product, 1}, x.x.data(), x.stride, tokens, input_format::f32, {});
}

/// The same for rows [first, last).
void blocks(packed_view const& w, index_t first, index_t last, inputs const& x, index_t tokens, float* y,
            index_t y_stride) {
    kernel::with_block_table(w, input_format::f32, [&]<class Table>(Table const& table, auto const& numbers) {
        scratch memory{executor_ref()};
        auto const ordered = kernel::block_inputs<Table>::of(memory, w, numbers, x.x.data(), x.stride, tokens);
        auto* const decoded = memory.take<float>(kernel::floats_of_decoded(ordered));
        kernel::multiply_blocks(w, table, first, last, ordered, y, y_stride, decoded);
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

TEST(blocks, match_the_reference_for_long_codes_and_many_tokens) {
    for (per_tile const tile : {per_tile{1, 128}, {2, 0}, {1, 16}}) {
        for (index_t const tokens : {31, 32, 33, 38, 47}) {
            expect_product(all_blocks, random_packed(int_grid<8>{}, {7, 300}, tile), tokens);
            expect_product(all_blocks, random_packed(int_grid<5, zero::none>{}, {4, 256}, tile), tokens);
            expect_product(all_blocks, random_packed(fp_grid<2, 2>{}, {9, 129}, tile), tokens);
            expect_product(all_blocks, random_packed(e4m3{}, {6, 200}, tile), tokens);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
}

TEST(blocks, match_the_reference_with_weak_columns) {
    for (float_format const format : {float_format::f16, float_format::bf16, float_format::f32}) {
        solution s = random_solution(int_grid<3>{}, {33, 600}, per_tile{1, 64}.tile({33, 600}), 1);
        weaken(s, int_grid<3>{}, random_columns(600, 6, 3), format);
        expect_product(all_blocks, pack(s), 3);
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
        std::vector<float> whole(static_cast<std::size_t>(tokens * 73), -7);
        blocks(w.view(), 0, 71, x, tokens, whole.data(), 73);
        std::vector<float> y(whole.size(), -7);
        for (index_t row = 0; row < 71; row += 3) {
            blocks(w.view(), row, std::min<index_t>(71, row + 3), x, tokens, y.data(), 73);
        }
        EXPECT_EQ(y, whole);
    }
}

/// The product by integers of three bytes; false where there is none.
bool wide(packed_view const& w, inputs const& x, index_t tokens, std::vector<float>& y) {
    y.assign(static_cast<std::size_t>(tokens * w.shape.rows), -7);
    return kernel::with_wide_table(w, [&]<class Table>(Table const& table, kernel::byte_numbers const& numbers) {
        scratch memory{executor_ref()};
        auto const ordered = kernel::block_inputs<Table>::of(memory, w, numbers, x.x.data(), x.stride, tokens);
        auto* const decoded = memory.take<float>(kernel::floats_of_decoded(ordered));
        kernel::multiply_blocks(w, table, 0, w.shape.rows, ordered, y.data(), w.shape.rows, decoded);
    });
}

/// Every output is within a few roundings of the reference, each to 23 bits of the largest input of a lane times the
/// widest difference between numbers of the grid; answers whether there is such a product.
bool expect_wide(packed_matrix const& packed, inputs const& x, index_t tokens) {
    packed_view const w = packed.view();
    std::vector<float> y;
    if (!wide(w, x, tokens, y)) {
        return false;
    }
    auto const [low, high] = std::ranges::minmax(packed.table);
    for (index_t t = 0; t < tokens; ++t) {
        for (index_t r = 0; r < w.shape.rows; ++r) {
            double bound = 0;
            for (index_t k = 0; k < w.shape.cols; k += 8) {
                double largest = 0;
                for (index_t i = k; i < std::min(k + 8, w.shape.cols); ++i) {
                    largest = std::max(largest, std::abs(double{x.row(t)[i]}));
                }
                bound += 8 * double{high - low} * packed.scales.at(r / w.tile.rows, k / w.tile.cols).scale * largest;
            }
            EXPECT_NEAR(y[static_cast<std::size_t>(t * w.shape.rows + r)], kernel::reference_dot(w, r, x.row(t)),
                        bound * 0x1p-23)
                << packed.bits << " bits, " << w.shape.cols << " columns, token " << t << ", row " << r;
        }
    }
    return true;
}

TEST(wide_inputs, match_the_reference_for_every_width_and_tile) {
    for (per_tile const tile : tiles_of_lanes) {
        for (index_t const cols : {1, 7, 8, 127, 128, 129, 300, 1100}) {
            inputs const x(3, cols);
            expect_wide(random_packed(int_grid<1>{}, {9, cols}, tile), x, 1);
            expect_wide(random_packed(int_grid<2>{}, {9, cols}, tile), x, 2);
            expect_wide(random_packed(int_grid<3>{}, {9, cols}, tile), x, 1);
            expect_wide(random_packed(int_grid<3, zero::none>{}, {9, cols}, tile), x, 3);
            EXPECT_EQ(expect_wide(random_packed(int_grid<4>{}, {9, cols}, tile), x, 3), simd::nibble_bytes::exists);
            expect_wide(random_packed(int_grid<4, zero::none>{}, {9, cols}, tile), x, 1);
            expect_wide(random_packed(int_grid<5>{}, {9, cols}, tile), x, 1);
            expect_wide(random_packed(int_grid<6, zero::none>{}, {9, cols}, tile), x, 2);
            expect_wide(random_packed(int_grid<8>{}, {9, cols}, tile), x, 2);
            expect_wide(random_packed(int_grid<8, zero::none>{}, {9, cols}, tile), x, 1);
            EXPECT_EQ(expect_wide(random_packed(e2m1{}, {9, cols}, tile), x, 1), simd::nibble_bytes::exists);
            ASSERT_FALSE(HasFailure());
        }
    }
}

TEST(wide_inputs, that_have_few_bits_are_exact) {
    packed_matrix const w = random_packed(int_grid<4, zero::none>{}, {7, 300}, {1, 128});
    inputs x(1, 300);
    for (index_t k = 0; k < 300; ++k) {
        x.x[static_cast<std::size_t>(k)] = static_cast<float>(k % 7 - 3) * 0x1p-100F;
    }
    std::vector<float> y;
    if (wide(w.view(), x, 1, y)) {
        for (index_t r = 0; r < 7; ++r) {
            double const expected = kernel::reference_dot(w.view(), r, x.row(0));
            EXPECT_NEAR(y[static_cast<std::size_t>(r)], expected, 300 * 8 * 0x1p-124) << r;
        }
    }
}

TEST(wide_inputs, of_any_size) {
    packed_matrix const w = random_packed(int_grid<4>{}, {5, 300}, {1, 128});
    for (float const factor : {0.0F, 1e-45F, 1e-37F, 1e-30F, 1e30F}) {
        inputs x(1, 300);
        for (index_t k = 0; k < 300; ++k) { // lanes differ
            x.x[static_cast<std::size_t>(k)] *= k / 8 % 3 == 0 ? factor : 0;
        }
        std::vector<float> y;
        if (wide(w.view(), x, 1, y)) {
            for (index_t r = 0; r < 5; ++r) {
                double size = 0;
                for (index_t k = 0; k < 300; ++k) {
                    size += std::abs(double{w.stored_at(r, k)} * x.row(0)[k]);
                }
                EXPECT_NEAR(y[static_cast<std::size_t>(r)], kernel::reference_dot(w.view(), r, x.row(0)),
                            1e-5 * size + 300 * 0x1p-120)
                    << factor;
            }
        }
    }
}

TEST(wide_inputs, that_are_not_finite_are_floats) {
    packed_matrix const w = random_packed(int_grid<4, zero::none>{}, {5, 600}, {1, 128});
    for (float const bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        for (index_t const k : {0, 333, 599}) {
            inputs x(1, 600);
            x.x[static_cast<std::size_t>(k)] = bad;
            auto const y = run(all_blocks, w.view(), x, 1);
            for (std::size_t r = 0; r < 5; ++r) {
                EXPECT_FALSE(std::isfinite(y[r])) << k;
            }
        }
    }
}

} // namespace
