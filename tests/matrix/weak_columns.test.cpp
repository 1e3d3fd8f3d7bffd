// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/solution.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"

namespace {

using namespace detent;

/// A number as `format` stores it.
float rounded(float_format format, float x) {
    return format == float_format::f16    ? static_cast<float>(half{x})
           : format == float_format::bf16 ? static_cast<float>(bfloat16{x})
                                          : x;
}

TEST(weak_columns, by_default_there_are_none) {
    weak_columns const none;
    EXPECT_TRUE(none.empty());
    EXPECT_EQ(none.count(), 0);
    EXPECT_EQ(none.find(0), -1);
    EXPECT_EQ(none.view().count, 0);
    EXPECT_EQ(none.view().first_from(0), 0);
}

TEST(weak_columns, begin_as_zeros) {
    for (float_format const format : test::all_formats) {
        weak_columns const w({1, 5}, 7, format);
        EXPECT_EQ(w.count(), 2);
        EXPECT_EQ(w.rows(), 7);
        EXPECT_EQ(w.format(), format);
        EXPECT_EQ(w.values().size(), 2 * 7 * bits_of(format) / 8);
        for (index_t k = 0; k < 2; ++k) {
            for (index_t row = 0; row < 7; ++row) {
                EXPECT_EQ(w.at(k, row), 0);
            }
        }
    }
}

TEST(weak_columns, keep_each_number_rounded_to_their_format) {
    std::vector<float> const numbers{1, -1, 0.1F, 1.0F / 3, -65504, 0x1p-24F, 3.14159F, 0, -0.0F};
    for (float_format const format : test::all_formats) {
        weak_columns w({0, 2, 9}, 3, format);
        for (std::size_t i = 0; i < 9; ++i) {
            w.set(static_cast<index_t>(i / 3), static_cast<index_t>(i % 3), numbers[i]);
        }
        for (std::size_t i = 0; i < 9; ++i) {
            index_t const k = static_cast<index_t>(i / 3);
            index_t const row = static_cast<index_t>(i % 3);
            float const expected = rounded(format, numbers[i]);
            EXPECT_EQ(std::bit_cast<std::uint32_t>(w.at(k, row)), std::bit_cast<std::uint32_t>(expected)) << i;
            EXPECT_EQ(w.view().at(k, row), expected);
        }
    }
}

TEST(weak_columns, lie_one_after_the_other) {
    weak_columns w({3, 4}, 5, float_format::bf16);
    w.set(1, 2, 1.5F);
    std::uint16_t bits = 0;
    std::memcpy(&bits, w.values().data() + 2 * (5 + 2), 2);
    EXPECT_EQ(bits, bfloat16{1.5F}.bits);
    EXPECT_EQ(w.view().values, w.values().data());
    EXPECT_EQ(w.view().columns, w.columns().data());
    EXPECT_EQ(w.view().rows, 5);
    EXPECT_EQ(w.view().format, float_format::bf16);
}

TEST(weak_columns, are_found_by_their_stored_column) {
    weak_columns const w({0, 3, 4, 20}, 2, float_format::f16);
    std::vector<std::int32_t> const columns{0, 3, 4, 20};
    for (index_t col = 0; col < 25; ++col) {
        index_t found = -1;
        index_t first = 0;
        for (index_t k = 0; k < 4; ++k) {
            found = columns[static_cast<std::size_t>(k)] == col ? k : found;
            first += columns[static_cast<std::size_t>(k)] < col ? 1 : 0;
        }
        EXPECT_EQ(w.find(col), found) << col;
        EXPECT_EQ(w.view().first_from(col), first) << col;
    }
}

TEST(weak_columns, stored_as_rounds_once_more) {
    weak_columns exact({1, 2}, 3, float_format::f32);
    for (index_t i = 0; i < 6; ++i) {
        exact.set(i / 3, i % 3, std::sqrt(static_cast<float>(i + 2)));
    }
    EXPECT_EQ(exact.stored_as(float_format::f32), exact);
    for (float_format const format : test::all_formats) {
        weak_columns const other = exact.stored_as(format);
        EXPECT_EQ(other.format(), format);
        EXPECT_EQ(other.columns(), exact.columns());
        for (index_t i = 0; i < 6; ++i) {
            EXPECT_EQ(other.at(i / 3, i % 3), rounded(format, exact.at(i / 3, i % 3)));
        }
    }
}

TEST(weak_columns, equality_sees_columns_rows_format_and_numbers) {
    weak_columns const w({1, 5}, 7, float_format::f16);
    EXPECT_EQ(w, weak_columns(w));
    EXPECT_FALSE(w == weak_columns({1, 6}, 7, float_format::f16));
    EXPECT_FALSE(w == weak_columns({1}, 14, float_format::f16));
    EXPECT_FALSE(w == weak_columns({1, 5}, 6, float_format::f16));
    EXPECT_FALSE(w == weak_columns({1, 5}, 7, float_format::bf16));
    EXPECT_FALSE(w == weak_columns());
    weak_columns other = w;
    other.set(1, 6, 1);
    EXPECT_FALSE(w == other);
    EXPECT_EQ(weak_columns({}, 7, float_format::bf16), weak_columns()) << "no columns are no columns";
}

template <Grid G> void expect_weak_in_place(G const& grid) {
    for (float_format const format : test::all_formats) {
        for (extents const tile : {extents{1, 29}, {1, 8}, {4, 10}}) {
            solution s = test::random_solution(grid, {6, 29}, tile, 5);
            solution const before = s;
            test::weaken(s, grid, {0, 7, 8, 28}, format);
            packed_matrix const w = pack(s);
            packed_matrix const plain = pack(before);
            EXPECT_EQ(w.weak, s.weak);
            EXPECT_EQ(w.view().weak.values, w.weak.values().data());
            for (index_t r = 0; r < 6; ++r) {
                for (index_t c = 0; c < 29; ++c) {
                    index_t const k = c == 0 ? 0 : c == 7 ? 1 : c == 8 ? 2 : c == 28 ? 3 : -1;
                    ASSERT_EQ(w.stored_at(r, c), k >= 0 ? s.weak.at(k, r) : plain.stored_at(r, c)) << r << ' ' << c;
                }
            }
        }
    }
}

TEST(packed_matrix, has_the_numbers_of_weak_columns_in_place_of_codes) {
    expect_weak_in_place(int_grid<3>{});
    expect_weak_in_place(int_grid<4, zero::none>{});
    expect_weak_in_place(e2m1{});
}

TEST(packed_matrix, dequantizes_weak_columns_in_natural_and_other_order) {
    int_grid<3> const grid;
    solution s = test::random_solution(grid, {4, 21}, {1, 5}, 2);
    test::weaken(s, grid, {2, 3, 20}, float_format::bf16);
    for (bool const reordered : {false, true}) {
        if (reordered) {
            s.map = input_map(permutation{test::random_order(21, 3)}, 21);
        }
        packed_matrix const w = pack(s);
        matrix const dense = dequantize(w);
        for (index_t r = 0; r < 4; ++r) {
            for (index_t c = 0; c < 21; ++c) {
                index_t const input = reordered ? (*s.map.order())[static_cast<std::size_t>(c)] : c;
                index_t const k = c == 2 ? 0 : c == 3 ? 1 : c == 20 ? 2 : -1;
                tile_scale const scale = s.scale_at(r, c);
                EXPECT_EQ(dense(r, input), k >= 0 ? s.weak.at(k, r) : decode(grid, s.code_at(r, c), scale));
            }
        }
    }
}

TEST(packed_matrix, equality_sees_weak_columns) {
    int_grid<4> const grid;
    solution s = test::random_solution(grid, {6, 30}, {1, 10}, 5);
    test::weaken(s, grid, {4, 9}, float_format::f16);
    packed_matrix const w = pack(s);
    EXPECT_EQ(w, packed_matrix(w));
    packed_matrix other = w;
    other.weak.set(1, 3, other.weak.at(1, 3) + 1);
    EXPECT_FALSE(other == w);
    other = w;
    other.weak = {};
    EXPECT_FALSE(other == w);
    other = w;
    other.weak = w.weak.stored_as(float_format::f32);
    EXPECT_FALSE(other == w);
}

TEST(packed_matrix, bits_count_weak_columns) {
    extents const shape{256, 512};
    for (float_format const format : test::all_formats) {
        int const width = format == float_format::f32 ? 32 : 16;
        int_grid<4> const grid;
        solution s = test::random_solution(grid, shape, {1, 128}, 1);
        EXPECT_EQ(pack(s).effective_bits(), 4);
        test::weaken(s, grid, {0, 1, 100, 511}, format);
        packed_matrix const w = pack(s);
        EXPECT_DOUBLE_EQ(w.bits_per_weight(), 4.15625 + 4.0 * (256 * width + 32) / (256 * 512));
        EXPECT_DOUBLE_EQ(w.effective_bits(), 4 + 4.0 / 512 * (width - 4));
    }
}

TEST(weak_columns, ascend_from_0) {
    for (std::vector<std::int32_t> const& columns : {std::vector<std::int32_t>{2, 1}, {1, 1}, {-1, 2}}) {
        EXPECT_EQ(failure_message([&] { weak_columns(columns, 3, float_format::f16); }),
                  "weak columns: do not ascend from 0");
    }
    EXPECT_EQ(failure_message([] { weak_columns({}, -3, float_format::f16); }),
              "weak columns: its number of rows is -3, not 0 or more");
}

} // namespace
