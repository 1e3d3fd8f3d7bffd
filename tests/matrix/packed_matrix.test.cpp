// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "matrix/random_solution.hpp"
#include "pack/random_codes.hpp"

namespace {

using namespace detent;
using test::random_solution;

TEST(pack_rows, starts_every_row_on_a_byte) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (index_t const cols : {1, 7, 8, 9, 33}) {
            extents const shape{5, cols};
            auto const codes = test::random_codes(bits, shape.size());
            buffer const bytes = pack_rows(bits, shape, codes.data());
            index_t const row_bytes = ceil_div(cols * bits, 8);
            ASSERT_EQ(bytes.size(), 5 * row_bytes);
            with_bits(bits, [&]<int Bits> {
                for (index_t i = 0; i < shape.size(); ++i) {
                    auto const* const row = bytes.data() + i / cols * row_bytes;
                    ASSERT_EQ(linear_packing<Bits>::get(row, i % cols), codes[static_cast<std::size_t>(i)]);
                }
            });
        }
    }
}

template <Grid G> void expect_same_weights(G const& grid, extents tile) {
    solution const s = random_solution(grid, {6, 29}, tile, 5);
    packed_matrix const w = pack(s);
    ASSERT_EQ(w.shape(), s.shape);
    EXPECT_EQ(w.row_bytes(), ceil_div(29 * G::bits, 8));
    for (index_t r = 0; r < 6; ++r) {
        for (index_t c = 0; c < 29; ++c) {
            EXPECT_EQ(w.code_at(r, c), s.code_at(r, c));
            tile_scale const scale = s.scales.at(r / tile.rows, c / tile.cols);
            EXPECT_EQ(w.stored_at(r, c), (grid.decode(s.code_at(r, c)) - scale.zero) * scale.scale);
        }
    }
}

TEST(packed_matrix, has_the_codes_and_weights_of_its_solution) {
    for (extents const tile : {extents{1, 29}, {1, 8}, {4, 10}, {6, 29}}) {
        expect_same_weights(int_grid<1>{}, tile);
        expect_same_weights(int_grid<3>{}, tile);
        expect_same_weights(int_grid<8, zero::none>{}, tile);
        expect_same_weights(e2m1{}, tile);
        expect_same_weights(e4m3{}, tile);
        expect_same_weights(ternary{}, tile);
    }
}

TEST(packed_matrix, view_points_at_its_data) {
    packed_matrix const w = pack(random_solution(int_grid<3>{}, {6, 29}, {4, 10}, 5));
    packed_view const v = w.view();
    EXPECT_EQ(v.codes, w.codes.data());
    EXPECT_EQ(v.row_bytes, 11);
    EXPECT_EQ(v.bits, 3);
    EXPECT_EQ(v.shape, (extents{6, 29}));
    EXPECT_EQ(v.tile, (extents{4, 10}));
    EXPECT_EQ(v.tiles_per_row, 3);
    EXPECT_EQ(v.scales, w.scales.scales.data());
    EXPECT_EQ(v.zeros, w.scales.zeros.data());
    EXPECT_EQ(v.table, w.table.data());
    EXPECT_EQ(pack(random_solution(e2m1{}, {2, 3}, {1, 3}, 1)).view().zeros, nullptr);
}

TEST(packed_matrix, view_says_whether_numbers_are_consecutive) {
    auto const consecutive = [](auto const& grid) {
        return pack(random_solution(grid, {2, 3}, {1, 3}, 1)).view().consecutive;
    };
    EXPECT_TRUE(consecutive(int_grid<1>{}));
    EXPECT_TRUE(consecutive(int_grid<8, zero::none>{}));
    EXPECT_FALSE(consecutive(int_grid<1, zero::none>{}));
    EXPECT_FALSE(consecutive(e2m1{}));
    EXPECT_FALSE(consecutive(ternary{})); // its last code names no number
}

template <Grid G> double bits_per_weight(G const& grid, per_tile granularity, scale_format format = {}) {
    extents const shape{256, 512};
    solution s = random_solution(grid, shape, granularity.tile(shape), 1);
    s.scales.format = format;
    return pack(s).bits_per_weight();
}

TEST(packed_matrix, bits_per_weight_counts_codes_scales_and_zeros) {
    EXPECT_EQ(bits_per_weight(int_grid<4>{}, {1, 128}), 4.15625);
    EXPECT_EQ(bits_per_weight(int_grid<4, zero::none>{}, {1, 128}), 4.125);
    EXPECT_EQ(bits_per_weight(int_grid<4>{}, {1, 128}, float_format::f32), 4.28125);
    EXPECT_EQ(bits_per_weight(int_grid<4>{}, {1, 128}, float_format::bf16), 4.15625);
    EXPECT_EQ(bits_per_weight(int_grid<3>{}, {1, 64}), 3 + 19.0 / 64);
    EXPECT_EQ(bits_per_weight(int_grid<4>{}, {1, 0}), 4 + 20.0 / 512);
    EXPECT_EQ(bits_per_weight(int_grid<4>{}, {0, 0}), 4 + 20.0 / (256 * 512));
    EXPECT_EQ(bits_per_weight(nf4{}, {1, 64}), 4.25);
    EXPECT_EQ(bits_per_weight(e4m3{}, {32, 32}), 8 + 16.0 / 1024);
    EXPECT_EQ(bits_per_weight(e2m1{}, {1, 32}, scale_kind::e8m0), 4.25);
    EXPECT_EQ(bits_per_weight(e2m1{}, {1, 16}, scale_kind::ue4m3), 4.5 + 32.0 / (256 * 512));
    EXPECT_EQ(bits_per_weight(int_grid<4>{}, {1, 32}, scale_kind::e8m0), 4 + 12.0 / 32);
    EXPECT_EQ(bits_per_weight(int_grid<2>{}, {1, 500}), 2 + 2 * 18.0 / 512); // the short last group costs a whole one
}

TEST(packed_matrix, equality_sees_every_part) {
    packed_matrix const w = pack(random_solution(int_grid<4>{}, {6, 30}, {1, 10}, 5));
    EXPECT_EQ(w, packed_matrix(w));
    auto const expect_different = [&](auto const& change) {
        packed_matrix other = w;
        change(other);
        EXPECT_FALSE(other == w);
    };
    expect_different([](packed_matrix& o) { o.codes.data()[3] ^= 1; });
    expect_different([](packed_matrix& o) { o.scales.scales[2] += 1; });
    expect_different([](packed_matrix& o) { o.scales.zeros[2] += 1; });
    expect_different([](packed_matrix& o) { o.scales.format = float_format::bf16; });
    expect_different([](packed_matrix& o) { o.scales.format.unit = 2; });
    expect_different([](packed_matrix& o) { o.map = input_map(permutation{test::random_order(30, 1)}, 30); });
    expect_different([](packed_matrix& o) { o.tile.rows = 2; });
    expect_different([](packed_matrix& o) { o.extent.cols = 29; });
    expect_different([](packed_matrix& o) { o.table[5] = -1; });
    packed_matrix const t = pack(random_solution(ternary{}, {6, 30}, {1, 10}, 5));
    EXPECT_EQ(t, packed_matrix(t)) << "codes that name no number are no difference";
}

} // namespace
