// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/grid/one_of.hpp"
#include "grid/own_grid.hpp"

namespace {

using namespace detent;

/// Whether `one_of` accepts these grids.
template <class... Gs>
concept choosable = requires {
    typename one_of<Gs...>;
};

static_assert(choosable<e2m1> && choosable<e2m1, fp_grid<3, 0>, fp_grid<1, 2>> &&
              choosable<nf4, int_grid<4, zero::none>>);
static_assert(choosable<test::powers_of_two, fp_grid<1, 1>>);
static_assert(!choosable<e2m1, fp_grid<3, 2>>, "of equal bits");
static_assert(!choosable<int_grid<4>> && !choosable<e2m1, int_grid<4>>, "without zero points");

static_assert(is_choice<one_of<e2m1>> && !is_choice<e2m1>);
static_assert(GridOrChoice<one_of<e2m1, nf4>> && GridOrChoice<int_grid<4>> && !GridOrChoice<int>);
static_assert(!Grid<one_of<e2m1, nf4>>);

TEST(one_of, has_the_bits_of_its_grids_and_their_values) {
    one_of<test::odd_multiples, int_grid<2, zero::none>> const choice{{test::odd_multiples{.step = 2}, {}}};
    EXPECT_EQ(choice.bits, 2);
    EXPECT_EQ(std::get<0>(choice.grids).highest(), 6);
    EXPECT_NE(choice, (one_of<test::odd_multiples, int_grid<2, zero::none>>{}));
}

} // namespace
