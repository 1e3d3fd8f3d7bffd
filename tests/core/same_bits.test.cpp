// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>

#include <gtest/gtest.h>

#include "detent/core/same_bits.hpp"

namespace {

using detent::same_bits;

TEST(same_bits, compares_sizes_and_bits) {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(same_bits({}, {}));
    EXPECT_TRUE(same_bits({1, nan}, {1, nan}));
    EXPECT_FALSE(same_bits({1, nan}, {1, 2}));
    EXPECT_FALSE(same_bits({1}, {1, 1}));
    EXPECT_FALSE(same_bits({}, {0}));
    EXPECT_FALSE(same_bits({0.0F}, {-0.0F}));
}

} // namespace
