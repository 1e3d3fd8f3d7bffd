// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/row_order.hpp"
#include "detent/matrix/solution.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"

namespace {

using namespace detent;

template <Grid G> packed_matrix random_matrix(G const& grid, extents shape, extents tile, bool weak) {
    solution s = test::random_solution(grid, shape, tile, 1);
    if (weak) {
        test::weaken(s, grid, test::random_columns(shape.cols, 2, 3), float_format::bf16);
    }
    return pack(s);
}

TEST(move_rows, gives_the_rows_in_another_order) {
    for (auto const& w :
         {random_matrix(int_grid<3>{}, {7, 37}, {1, 10}, true), random_matrix(e2m1{}, {7, 40}, {1, 40}, false)}) {
        std::vector<index_t> const order{3, 0, 6, 1, 5, 2, 4};
        auto const moved = io::move_rows(w, order);
        for (index_t row = 0; row < 7; ++row) {
            for (index_t col = 0; col < w.shape().cols; ++col) {
                EXPECT_EQ(moved.stored_at(row, col), w.stored_at(order[static_cast<std::size_t>(row)], col));
            }
        }
        std::vector<index_t> back(7);
        for (std::size_t r = 0; r < 7; ++r) {
            back[static_cast<std::size_t>(order[r])] = static_cast<index_t>(r);
        }
        EXPECT_TRUE(io::move_rows(moved, back) == w);
    }
    packed_matrix const w = random_matrix(int_grid<4>{}, {4, 32}, {2, 32}, false);
    auto const refused = [&](std::vector<index_t> const& order) {
        return failure_message([&] { io::move_rows(w, order); });
    };
    EXPECT_EQ(refused({1, 0, 3, 2}), "packed matrix: has rows that share scales");
    for (auto const& order : {std::vector<index_t>{0, 1, 2}, {0, 1, 2, 2}, {0, 1, 2, 4}, {0, 1, 2, -1}, {}}) {
        EXPECT_EQ(refused(order), "order of rows: does not have each row once");
    }
}

} // namespace
