// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/nibbles.hpp"

namespace {

using namespace detent;

std::vector<std::uint8_t> some_bytes(index_t n, unsigned factor) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::uint8_t>((i + 1) * factor);
    }
    return bytes;
}

TEST(swap_nibbles, puts_lower_and_higher_nibbles_together_and_back) {
    for (auto const where : {simd::destination::cache, simd::destination::memory}) {
        for (index_t n = 0; n <= 200; ++n) {
            auto const a = some_bytes(n, 37);
            auto const b = some_bytes(n, 101);
            alignas(64) std::uint8_t lower[256];
            alignas(64) std::uint8_t higher[256];
            lower[n] = higher[n] = 0xA5;
            simd::swap_nibbles(a.data(), b.data(), n, lower, higher, where);
            simd::end_stream();
            for (index_t i = 0; i < n; ++i) {
                auto const at = static_cast<std::size_t>(i);
                ASSERT_EQ(lower[i], (a[at] & 15) | (b[at] & 15) << 4) << n;
                ASSERT_EQ(higher[i], a[at] >> 4 | (b[at] & 0xF0)) << n;
            }
            ASSERT_EQ(lower[n], 0xA5);
            ASSERT_EQ(higher[n], 0xA5);
            std::vector<std::uint8_t> a_again(a.size());
            std::vector<std::uint8_t> b_again(b.size());
            simd::swap_nibbles(lower, higher, n, a_again.data(), b_again.data(), simd::destination::cache);
            ASSERT_EQ(a_again, a);
            ASSERT_EQ(b_again, b);
        }
    }
}

TEST(split_halves, puts_nibbles_j_and_j_plus_16_into_a_byte_and_join_halves_undoes_it) {
    auto const from = some_bytes(32, 37);
    std::uint8_t blocks[2][16];
    simd::split_halves(from.data(), blocks[0], blocks[1]);
    auto const nibble = [&](std::size_t i) { return from[i / 2] >> (i % 2 * 4) & 15; };
    for (std::size_t block = 0; block < 2; ++block) {
        for (std::size_t j = 0; j < 16; ++j) {
            EXPECT_EQ(blocks[block][j], nibble(32 * block + j) | nibble(32 * block + 16 + j) << 4);
        }
    }
    std::vector<std::uint8_t> again(32);
    simd::join_halves(blocks[0], blocks[1], again.data());
    EXPECT_EQ(again, from);
}

} // namespace
