// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/name.hpp"
#include "grid/own_grid.hpp"

namespace {

using namespace detent;

TEST(name_of, is_what_specifications_and_files_call_a_grid) {
    EXPECT_EQ(name_of(int_grid<4>{}), "int4");
    EXPECT_EQ((name_of(int_grid<1, zero::free>{})), "int1");
    EXPECT_EQ((name_of(int_grid<8, zero::none>{})), "int8sym");
    EXPECT_EQ((name_of(fp_grid<4, 3>{})), "e4m3");
    EXPECT_EQ((name_of(fp_grid<3, 0>{})), "e3m0");
    EXPECT_EQ(name_of(e2m1{}), "e2m1");
    EXPECT_EQ(name_of(e4m3{}), "ocp-e4m3");
    EXPECT_EQ(name_of(e5m2{}), "ocp-e5m2");
    EXPECT_EQ(name_of(nf4{}), "nf4");
    EXPECT_EQ(name_of(ternary{}), "ternary");
}

TEST(name_of, is_empty_without_one) {
    EXPECT_EQ((name_of(fp_grid<3, 2, reserved::infinity>{})), "");
    EXPECT_EQ((name_of(fp_grid<5, 2, reserved::nan>{})), "");
    EXPECT_EQ(name_of(test::powers_of_two{}), "");
    EXPECT_EQ(name_of(test::five{}), "");
}

} // namespace
