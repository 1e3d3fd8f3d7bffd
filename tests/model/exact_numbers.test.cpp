// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/half.hpp"
#include "detent/model/exact_numbers.hpp"

namespace detent {
namespace {

TEST(are_numbers_of, sees_every_bit) {
    std::array const both{1.5F, -0.0F, std::numeric_limits<float>::infinity()};
    std::array const only_half{1 + 0x1p-10F}, only_bfloat16{0x1p100F}, neither{1 + 0x1p-20F};
    EXPECT_TRUE(are_numbers_of<half>(both) && are_numbers_of<bfloat16>(both) && are_numbers_of<float>(neither));
    EXPECT_TRUE(are_numbers_of<half>(only_half) && are_numbers_of<bfloat16>(only_bfloat16));
    EXPECT_FALSE(are_numbers_of<bfloat16>(only_half) || are_numbers_of<half>(only_bfloat16));
    EXPECT_FALSE(are_numbers_of<half>(neither) || are_numbers_of<bfloat16>(neither));
}

TEST(bytes_as, rounds_and_keeps_the_order) {
    std::array const numbers{1.0F, -2.0F, 1 + 0x1p-20F};
    EXPECT_EQ(bytes_as<half>(numbers), (std::vector<std::uint8_t>{0x00, 0x3c, 0x00, 0xc0, 0x00, 0x3c}));
    EXPECT_EQ(bytes_as<bfloat16>(numbers), (std::vector<std::uint8_t>{0x80, 0x3f, 0x00, 0xc0, 0x80, 0x3f}));
}

} // namespace
} // namespace detent
