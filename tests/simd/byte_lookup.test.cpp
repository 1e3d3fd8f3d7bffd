// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/linear.hpp"
#include "detent/simd/byte_lookup.hpp"

namespace {

using namespace detent;

TEST(byte_lookup, finds_the_bytes_of_codes_for_every_width_and_length) {
    std::mt19937 random(1);
    for (int bits = 1; bits <= 8; ++bits) {
        std::vector<std::uint8_t> table(std::size_t{1} << bits);
        std::ranges::generate(table, [&] { return static_cast<std::uint8_t>(random()); });
        for (std::size_t n = 0; n <= 300; ++n) {
            std::vector<code> codes(n);
            std::ranges::generate(codes, [&] { return static_cast<code>(random() % table.size()); });
            std::vector<std::uint8_t> found(n + 1, 77);
            with_bits(bits, [&]<int Bits> {
                simd::byte_table const repeated(bits, [&](code c) { return table[c]; });
                simd::lookup<Bits>(repeated, codes.data(), static_cast<index_t>(n), found.data());
            });
            for (std::size_t i = 0; i < n; ++i) {
                ASSERT_EQ(found[i], table[codes[i]]) << bits << " bits, " << i << " of " << n;
            }
            ASSERT_EQ(found[n], 77);
        }
    }
}

TEST(byte_lookup, decodes_streams_from_any_code_on) {
    std::mt19937 random(2);
    for (int bits = 1; bits <= 8; ++bits) {
        std::vector<std::uint8_t> table(std::size_t{1} << bits);
        std::ranges::generate(table, [&] { return static_cast<std::uint8_t>(random()); });
        std::vector<std::uint8_t> stream(1000);
        std::ranges::generate(stream, [&] { return static_cast<std::uint8_t>(random()); });
        with_bits(bits, [&]<int Bits> {
            simd::byte_table const repeated(bits, [&](code c) { return table[c]; });
            for (index_t begin = 0; begin < 20; ++begin) {
                for (index_t const n : {0, 1, 5, 8, 63, 64, 65, 127, 128, 130, 300, 511, 512}) {
                    std::vector<std::uint8_t> found(static_cast<std::size_t>(n + 1), 77);
                    simd::decode<Bits>(repeated, stream.data(), begin, n, found.data());
                    for (index_t i = 0; i < n; ++i) {
                        ASSERT_EQ(found[static_cast<std::size_t>(i)],
                                  table[linear_packing<Bits>::get(stream.data(), begin + i)])
                            << bits << " bits, " << i << " of " << n << " from " << begin;
                    }
                    ASSERT_EQ(found[static_cast<std::size_t>(n)], 77);
                }
            }
        });
    }
}

} // namespace
