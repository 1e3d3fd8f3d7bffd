// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
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

} // namespace
