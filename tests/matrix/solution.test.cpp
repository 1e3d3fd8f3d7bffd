// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/matrix/solution.hpp"
#include "matrix/random_solution.hpp"

namespace {

using namespace detent;

TEST(solution, finds_the_scale_of_a_weight) {
    solution const s = test::random_solution(ternary{}, {7, 11}, {2, 4}, 1);
    ASSERT_EQ(s.scales.tiles, (extents{4, 3}));
    EXPECT_EQ(s.scale_at(0, 0), s.scales.at(0, 0));
    EXPECT_EQ(s.scale_at(1, 3), s.scales.at(0, 0));
    EXPECT_EQ(s.scale_at(2, 4), s.scales.at(1, 1));
    EXPECT_EQ(s.scale_at(6, 10), s.scales.at(3, 2));
}

TEST(pack, keeps_all_a_product_needs) {
    solution s = test::random_solution(ternary{}, {7, 11}, {2, 4}, 1);
    s.order = test::random_order(11, 1);
    packed_matrix const w = pack(ternary{}, s);
    EXPECT_EQ(w.bits, 2);
    EXPECT_EQ(w.extent, s.shape);
    EXPECT_EQ(w.tile, s.tile);
    EXPECT_EQ(w.scales, s.scales);
    EXPECT_EQ(w.order, s.order);
    ASSERT_EQ(w.table.size(), 4U);
    EXPECT_EQ(w.table[0], -1);
    EXPECT_TRUE(std::isnan(w.table[3]));
}

} // namespace
