// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cstdint>

#include <gtest/gtest.h>

#include "detent/simd/bytes.hpp"

namespace {

using namespace detent;

TEST(load_bytes, takes_each_byte_without_a_sign_from_any_address) {
    std::array<std::uint8_t, 256> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::uint8_t>(255 - i);
    }
    for (index_t first = 0; first + simd::lanes <= 256; ++first) {
        alignas(64) std::array<std::int32_t, simd::lanes> got{};
        simd::load_bytes(bytes.data() + first).store_aligned(got.data());
        for (index_t i = 0; i < simd::lanes; ++i) {
            EXPECT_EQ(got[static_cast<std::size_t>(i)], 255 - (first + i));
        }
    }
}

} // namespace
