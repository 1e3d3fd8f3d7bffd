// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/linear.hpp"
#include "detent/simd/unpack.hpp"
#include "pack/random_codes.hpp"

namespace {

using namespace detent;

TEST(unpack, equals_the_bit_stream_at_any_alignment) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (index_t n = 0; n <= 257; ++n) {
            with_bits(bits, [&]<int Bits> {
                auto const codes = test::random_codes(Bits, n);
                auto const offset = static_cast<std::size_t>(n % 9);
                auto const row_bytes = static_cast<std::size_t>(linear_packing<Bits>::row_bytes(n));
                // Exactly the 8 bytes that may be read past the row; what is in them must not matter.
                std::vector<std::uint8_t> bytes(offset + row_bytes + 8, 0xFF);
                linear_packing<Bits>::pack(codes.data(), n, bytes.data() + offset);
                std::vector<code> result(offset + codes.size() + 16, 0xA5);
                simd::unpack<Bits>(bytes.data() + offset, n, result.data() + offset);
                auto const begin = result.begin() + static_cast<index_t>(offset);
                ASSERT_EQ(std::vector(begin, begin + n), codes) << Bits << " bits, " << n << " codes";
                ASSERT_EQ(std::vector(begin + n, begin + n + 16), std::vector<code>(16, 0xA5));
            });
        }
    }
}

TEST(spread, puts_every_field_into_its_byte) {
    EXPECT_EQ(simd::spread<1>(0b10110001), 0x0100010100000001U);
    EXPECT_EQ(simd::spread<4>(0xFFFFFFFF87654321U), 0x0807060504030201U);
    EXPECT_EQ(simd::spread<8>(0x8877665544332211U), 0x8877665544332211U);
}

} // namespace
