// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/core/error.hpp"
#include "detent/quantizer/find_kv_format.hpp"

namespace {

using namespace detent;

TEST(find_kv_format, knows_floats_and_halves) {
    EXPECT_FALSE(find_kv_format("float").grid);
    EXPECT_EQ(find_kv_format("float").floats, float_format::f32);
    EXPECT_EQ(find_kv_format("f32").floats, float_format::f32);
    EXPECT_EQ(find_kv_format("f16").floats, float_format::f16);
    EXPECT_EQ(find_kv_format("bf16").floats, float_format::bf16);
}

TEST(find_kv_format, gives_coarse_grids_groups_and_centers) {
    for (auto const* const name : {"int8", "fp8", "int5"}) {
        auto const format = find_kv_format(name);
        EXPECT_EQ(format.group, 0) << name;
        EXPECT_FALSE(format.centered) << name;
    }
    for (auto const* const name : {"int4", "int2", "nf4", "e2m1"}) {
        auto const format = find_kv_format(name);
        EXPECT_EQ(format.group, 16) << name;
        EXPECT_TRUE(format.centered) << name;
    }
    EXPECT_EQ(find_kv_format("int8").grid->bits(), 8);
    EXPECT_EQ(find_kv_format("nf4").grid->bits(), 4);
}

TEST(find_kv_format, reads_groups) {
    EXPECT_EQ(find_kv_format("int4:g32").group, 32);
    EXPECT_EQ(find_kv_format("int4:g0").group, 0);
    EXPECT_EQ(find_kv_format("int8:g64").group, 64);
}

TEST(find_kv_format, refuses_other_names) {
    for (auto const* const name : {"", "float:g4", "f8", "int9", "int4:", "int4:32", "int4:g", "int4:g-1", "int4:g4x",
                                   "int4:g4:g4", "int4:g99999999999999999999", ":g4"}) {
        EXPECT_THROW(find_kv_format(name), error) << name;
    }
}

} // namespace
