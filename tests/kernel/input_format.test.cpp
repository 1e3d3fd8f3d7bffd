// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/input_format.hpp"
#include "detent/kernel/multiply.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using namespace detent::test;

/// Every output is within `of_size` times the sum of the sizes of its terms from that of rounded inputs.
void expect_product_of_rounded(packed_matrix const& packed, index_t tokens, input_format format, double of_size) {
    packed_view const w = packed.view();
    auto const [rows, cols] = w.shape;
    inputs const x(tokens, cols);
    std::vector<float> y(static_cast<std::size_t>(tokens * (rows + 2)), -7);
    kernel::multiply(w, x.x.data(), x.stride, tokens, y.data(), rows + 2, {}, format);
    std::vector<float> rounded(static_cast<std::size_t>(cols));
    for (index_t t = 0; t < tokens; ++t) {
        kernel::round_inputs(w, format, x.row(t), rounded.data());
        for (index_t k = 0; k < w.weak.count; ++k) { // weak columns may meet either
            rounded[static_cast<std::size_t>(w.weak.columns[k])] = x.row(t)[w.weak.columns[k]];
        }
        for (index_t r = 0; r < rows; ++r) {
            double size = 0;
            for (index_t k = 0; k < cols; ++k) {
                size += std::abs(double{packed.stored_at(r, k)} * rounded[static_cast<std::size_t>(k)]);
            }
            ASSERT_NEAR(y[static_cast<std::size_t>(t * (rows + 2) + r)], kernel::reference_dot(w, r, rounded.data()),
                        of_size * size)
                << packed.bits << " bits, " << rows << " x " << cols << ", tile " << packed.tile.rows << " x "
                << packed.tile.cols << ", token " << t << ", row " << r;
        }
        ASSERT_EQ(y[static_cast<std::size_t>(t * (rows + 2) + rows)], -7);
    }
}

constexpr per_tile all_tiles[] = {{1, 0}, {0, 0}, {1, 8}, {1, 24}, {1, 37}, {1, 128}, {1, 136}, {3, 0}, {2, 48}};

TEST(input_format, int8_is_the_product_of_rounded_inputs) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : all_tiles) {
            for (index_t const cols : {1, 7, 129, 300}) {
                with_bits(bits, [&]<int Bits> {
                    expect_product_of_rounded(random_packed(int_grid<Bits>{}, {9, cols}, tile), 2, input_format::int8,
                                              2e-6);
                    expect_product_of_rounded(random_packed(int_grid<Bits, zero::none>{}, {9, cols}, tile), 1,
                                              input_format::int8, 2e-6);
                });
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
    for (per_tile const tile : {per_tile{1, 0}, {1, 32}, {1, 128}}) {
        expect_product_of_rounded(random_packed(e2m1{}, {5, 1100}, tile), 5, input_format::int8, 2e-6);
        expect_product_of_rounded(random_packed(fp_grid<3, 0>{}, {5, 1100}, tile), 5, input_format::int8, 2e-6);
        expect_product_of_rounded(random_packed(fp_grid<2, 3>{}, {5, 1100}, tile), 5, input_format::int8, 2e-6);
    }
}

TEST(input_format, int8_rounds_numbers_that_are_no_integers) {
    for (per_tile const tile : {per_tile{1, 0}, {1, 32}, {1, 128}}) {
        expect_product_of_rounded(random_packed(nf4{}, {5, 1100}, tile), 3, input_format::int8, 5e-3);
        expect_product_of_rounded(random_packed(fp_grid<3, 2>{}, {5, 1100}, tile), 3, input_format::int8, 2e-2);
        expect_product_of_rounded(random_packed(e4m3{}, {5, 300}, tile), 3, input_format::int8, 2e-6);
    }
}

TEST(input_format, bf16_is_the_product_of_rounded_inputs) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : all_tiles) {
            for (index_t const cols : {7, 129, 300}) {
                with_bits(bits, [&]<int Bits> {
                    expect_product_of_rounded(random_packed(int_grid<Bits>{}, {9, cols}, tile), 9, input_format::bf16,
                                              4e-3);
                });
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
    for (index_t const tokens : {1, 2, 31, 32, 33, 35, 44}) {
        expect_product_of_rounded(random_packed(nf4{}, {7, 1100}, {1, 128}), tokens, input_format::bf16, 4e-3);
        expect_product_of_rounded(random_packed(int_grid<2>{}, {9, 300}, {2, 0}), tokens, input_format::bf16, 4e-3);
    }
}

TEST(input_format, tails_of_rows_and_tokens) {
    for (input_format const format : {input_format::bf16, input_format::int8}) {
        for (index_t const rows : {1, 3, 4, 5, 9}) {
            for (index_t tokens = 1; tokens <= 18; ++tokens) {
                expect_product_of_rounded(random_packed(int_grid<4>{}, {rows, 200}, {1, 64}), tokens, format, 4e-3);
                expect_product_of_rounded(random_packed(int_grid<3>{}, {rows, 200}, {1, 0}), tokens, format, 4e-3);
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST(input_format, weak_columns) {
    for (input_format const format : {input_format::bf16, input_format::int8}) {
        packed_matrix const w = weak_packed(int_grid<4>{}, {33, 600}, {1, 128}, 6, float_format::f16);
        expect_product_of_rounded(w, 3, format, 5e-3);
    }
}

TEST(input_format, integers_are_the_nearest_and_their_scale_is_the_largest_input) {
    float const x[] = {-3.0F, 0.0F, 1.6F, 2.99F, 0.011F};
    std::int8_t integers[5];
    EXPECT_FLOAT_EQ(kernel::round_to_bytes(x, 5, integers), 3.0F / 127);
    int const expected[] = {-127, 0, 68, 127, 0};
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(integers[i], expected[i]);
    }
    float const nothing[3] = {};
    EXPECT_EQ(kernel::round_to_bytes(nothing, 3, integers), 0);
    EXPECT_EQ(integers[0], 0);
}

TEST(input_format, sums_of_integers_are_exact) {
    solution s = random_solution(int_grid<4>{}, {37, 1100}, {1, 64}, 1);
    for (index_t tile = 0; tile < s.scales.tiles.cols; ++tile) {
        for (index_t r = 0; r < 37; ++r) {
            s.scales.set(r, tile, {1, static_cast<float>((r + tile) % 16)});
        }
    }
    packed_matrix const w = pack(s);
    for (index_t const tokens : {1, 2, 4, 7, 20}) {
        std::vector<float> x(static_cast<std::size_t>(tokens * 1100));
        std::mt19937 random(1);
        for (std::size_t i = 0; i < x.size(); ++i) { // 127 among those that share a scale, which then is 1
            x[i] = i % 1100 % 32 == 0 ? 127 : static_cast<float>(random() % 255) - 127;
        }
        std::vector<float> y(static_cast<std::size_t>(tokens * 37));
        kernel::multiply(w.view(), x.data(), 1100, tokens, y.data(), 37, {}, input_format::int8);
        for (index_t t = 0; t < tokens; ++t) {
            for (index_t r = 0; r < 37; ++r) {
                std::int64_t sum = 0;
                for (index_t k = 0; k < 1100; ++k) {
                    auto const input = static_cast<std::int64_t>(x[static_cast<std::size_t>(t * 1100 + k)]);
                    sum += input * (w.code_at(r, k) - (r + k / 64) % 16);
                }
                ASSERT_EQ(y[static_cast<std::size_t>(t * 37 + r)], static_cast<float>(sum)) << t << ", " << r;
            }
        }
    }
}

TEST(input_format, inputs_that_are_not_finite_reach_every_output) {
    packed_matrix const w = random_packed(int_grid<4>{}, {5, 256}, {1, 128});
    for (float const bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> x(256, 1.0F);
        x[130] = bad;
        float y[5];
        kernel::multiply(w.view(), x.data(), 256, 1, y, 5, {}, input_format::int8);
        for (float const v : y) {
            EXPECT_FALSE(std::isfinite(v));
        }
    }
}

} // namespace
