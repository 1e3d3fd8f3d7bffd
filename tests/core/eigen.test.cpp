// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/eigen.hpp"

namespace {

using namespace detent;

TEST(views, are_blocks_of_the_memory_of_their_matrix) {
    matrix const m = matrix::Random(7, 5);
    for (index_t first = 0; first < 7; ++first) {
        for (index_t count = 0; first + count <= 7; ++count) {
            matrix_view const rows = middle_rows(m, first, count);
            EXPECT_EQ(rows, m.middleRows(first, count));
            EXPECT_EQ(rows.data(), m.data() + first * 5);
        }
    }
    matrix_view const block = block_of(m, 2, 1, 4, 3);
    EXPECT_EQ(block, m.block(2, 1, 4, 3));
    EXPECT_EQ(block.data(), &m(2, 1));
    EXPECT_EQ(block_of(block, 1, 1, 2, 2), m.block(3, 2, 2, 2)); // of a block
    EXPECT_EQ(middle_rows(block, 1, 2), m.block(3, 1, 2, 3));
}

static_assert(std::is_same_v<dependent<std::vector<int>, float>, std::vector<int>>);

} // namespace
