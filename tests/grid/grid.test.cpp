// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <variant>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "grid/grid_properties.hpp"
#include "grid/own_grid.hpp"

namespace {

using namespace detent;
using test::powers_of_two;

struct positive_values {
    static constexpr std::array<float, 4> values{0, 1, 2, 4};
};
using positive = codebook_grid<positive_values>;

struct no_decode : std::monostate {
    static constexpr int bits = 4;
    static constexpr float lowest() { return 0; }
    static constexpr float highest() { return 1; }
    static constexpr code encode(float) { return 0; }
};
struct nine_bits : powers_of_two {
    static constexpr int bits = 9;
};
struct doubles : powers_of_two {
    static constexpr double decode(code) { return 0; }
};

static_assert(Grid<int_grid<1>> && Grid<int_grid<8, zero::none>> && Grid<e2m1> && Grid<e5m2> && Grid<nf4> &&
              Grid<ternary> && Grid<positive> && Grid<powers_of_two>);
static_assert(!Grid<int> && !Grid<no_decode> && !Grid<nine_bits> && !Grid<doubles>);

static_assert(AffineGrid<int_grid<1>> && AffineGrid<int_grid<8>>);
static_assert(!AffineGrid<int_grid<4, zero::none>> && !AffineGrid<e2m1> && !AffineGrid<nf4> &&
              !AffineGrid<powers_of_two>);

static_assert(SignedGrid<int_grid<4, zero::none>> && SignedGrid<int_grid<1, zero::none>> && SignedGrid<e4m3> &&
              SignedGrid<nf4> && SignedGrid<powers_of_two>);
static_assert(!SignedGrid<int_grid<4>> && !SignedGrid<positive>);

TEST(grid, a_users_own_struct_is_a_grid) { test::expect_grid(powers_of_two{}); }

TEST(grid, knows_whether_it_contains_zero) {
    EXPECT_TRUE(contains_zero(int_grid<1>{})); // by its zero point
    EXPECT_TRUE(contains_zero(int_grid<8>{}));
    EXPECT_TRUE(contains_zero(int_grid<2, zero::none>{}));
    EXPECT_TRUE(contains_zero(e2m1{}));
    EXPECT_TRUE(contains_zero(fp_grid<7, 0>{}));
    EXPECT_TRUE(contains_zero(nf4{}));
    EXPECT_TRUE(contains_zero(ternary{}));
    EXPECT_TRUE(contains_zero(positive{}));
    EXPECT_TRUE(contains_zero(test::half_up{}));
    EXPECT_FALSE(contains_zero(int_grid<1, zero::none>{}));
    EXPECT_FALSE(contains_zero(powers_of_two{}));
    EXPECT_FALSE(contains_zero(test::five{}));
    EXPECT_FALSE(contains_zero(test::uneven_pair{}));
    EXPECT_FALSE(contains_zero(test::odd_multiples{}));
}

TEST(grid, a_users_affine_grid_is_one) {
    static_assert(AffineGrid<test::half_up> && !SignedGrid<test::half_up>);
    test::expect_grid(test::odd_multiples{});
    test::expect_grid(test::odd_multiples{0.3F});
}

TEST(grid, table_of_lists_the_numbers_of_all_codes) {
    static_assert(table_of(int_grid<2, zero::none>{}) == std::array<float, 4>{-2, -1, 0, 1});
    static_assert(table_of(powers_of_two{}) == powers_of_two::values);
    EXPECT_EQ(table_of(int_grid<8>{})[255], 255);
    EXPECT_EQ(table_of(ternary{})[2], 1);
    EXPECT_TRUE(std::isnan(table_of(ternary{})[3]));
}

} // namespace
