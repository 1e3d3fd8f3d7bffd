// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/code_block.hpp"

namespace {

using namespace detent;

TEST(for_each_code_block, covers_every_code_once_from_multiples_of_the_steps_on) {
    for (extents const shape : {extents{0, 5}, {5, 0}, {1, 1}, {128, 256}, {129, 257}, {1300, 1111}}) {
        for (index_t const cols : {code_block::col_step, 3 * code_block::col_step}) {
            std::vector<int> visits(static_cast<std::size_t>(shape.size()));
            for_each_code_block(shape, cols, [&](code_block const& block) {
                EXPECT_EQ(block.row % code_block::row_step, 0);
                EXPECT_EQ(block.col % code_block::col_step, 0);
                EXPECT_LE(block.shape.rows, code_block::row_step);
                EXPECT_LE(block.shape.cols, cols);
                for (index_t r = 0; r < block.shape.rows; ++r) {
                    for (index_t c = 0; c < block.shape.cols; ++c) {
                        ++visits[static_cast<std::size_t>((block.row + r) * shape.cols + block.col + c)];
                    }
                }
            });
            EXPECT_EQ(visits, std::vector<int>(visits.size(), 1));
        }
    }
}

} // namespace
