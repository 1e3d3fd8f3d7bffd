// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>

#include <gtest/gtest.h>

#include "detent/io/safetensors.hpp"
#include "detent/pack/awq.hpp"
#include "pack/packings.hpp"
#include "pack/real_file.hpp"

namespace {

using namespace detent;

static_assert(Packing<awq_packing>);

TEST(awq_packing, round_trip_of_all_shapes) {
    for (extents const shape : test::ragged_shapes()) {
        test::expect_round_trip<awq_packing>(shape, shape.cols % 5);
    }
}

TEST(awq_packing, known_words) {
    // Ten outputs of two inputs: outputs 0 to 9 of the first have the codes 0 to 9, of the second 15 to 6.
    code codes[20];
    for (int i = 0; i < 10; ++i) {
        codes[2 * i] = static_cast<code>(i);
        codes[2 * i + 1] = static_cast<code>(15 - i);
    }
    std::uint32_t words[4] = {0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF};
    ASSERT_EQ(awq_packing::bytes({10, 2}), 16);
    awq_packing::pack(codes, {10, 2}, reinterpret_cast<std::uint8_t*>(words));
    EXPECT_EQ(words[0], 0x75316420U);
    EXPECT_EQ(words[1], 0x00090008U); // outputs 8 and 9, whose nibbles are 0 and 4; the others fill up
    EXPECT_EQ(words[2], 0x8ACE9BDFU);
    EXPECT_EQ(words[3], 0x00060007U);
}

TEST(awq_packing, a_real_file_is_unpacked_and_packed_to_the_same_bytes) {
    test::expect_bytes_of_real_file<awq_packing>("awq", [](io::tensor_view const& t) {
        return extents{t.shape[1] * 8, t.shape[0]};
    });
}

} // namespace
