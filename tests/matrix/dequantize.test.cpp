// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_solution.hpp"

namespace {

using namespace detent;

TEST(dequantize, puts_every_stored_column_at_its_input) {
    int_grid<3> const grid;
    solution s = test::random_solution(grid, {4, 21}, {1, 5}, 2);
    matrix const natural = dequantize(pack(s));
    s.map = input_map(permutation{test::random_order(21, 3)}, 21);
    packed_matrix const w = pack(s);
    matrix const reordered = dequantize(w);
    ASSERT_EQ(shape_of(reordered), (extents{4, 21}));
    for (index_t r = 0; r < 4; ++r) {
        for (index_t k = 0; k < 21; ++k) {
            EXPECT_EQ(natural(r, k), w.stored_at(r, k));
            EXPECT_EQ(reordered(r, (*s.map.order())[static_cast<std::size_t>(k)]), w.stored_at(r, k));
        }
    }
}

TEST(dequantize, rows_that_are_not_there_are_named) {
    packed_matrix const w = pack(test::random_solution(int_grid<4>{}, {5, 7}, {1, 7}, 1));
    for (auto const& [first, last] : {std::pair{-1, 2}, {3, 6}, {4, 3}}) {
        EXPECT_EQ(failure_message([&, a = first, b = last] { dequantize_rows(w, a, b); }),
                  "rows: are not of the matrix");
    }
    EXPECT_EQ(failure_message([&] { dequantize_row(w, 5); }), "rows: are not of the matrix");
}

} // namespace
