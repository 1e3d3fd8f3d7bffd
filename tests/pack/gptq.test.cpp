// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>

#include <gtest/gtest.h>

#include "detent/io/safetensors.hpp"
#include "detent/pack/gptq.hpp"
#include "pack/packings.hpp"
#include "pack/real_file.hpp"

namespace {

using namespace detent;

TEST(gptq_packing, round_trip_of_all_widths_and_shapes) {
    for (int bits = 1; bits <= 8; ++bits) {
        with_bits(bits, []<int Bits> {
            static_assert(Packing<gptq_packing<Bits>>);
            for (extents const shape : test::ragged_shapes()) {
                test::expect_round_trip<gptq_packing<Bits>>(shape, shape.cols % 5);
            }
        });
    }
}

TEST(gptq_packing, is_a_bit_stream_of_words_down_each_column) {
    for (int bits = 1; bits <= 8; ++bits) {
        with_bits(bits, []<int Bits> {
            for (extents const shape : {extents{3, 32}, {5, 33}, {20, 75}, {130, 1100}}) {
                auto const codes = test::random_codes(Bits, shape.size());
                std::vector<std::uint32_t> expected(
                    static_cast<std::size_t>((shape.cols * Bits + 31) / 32 * shape.rows));
                for (index_t row = 0; row < shape.rows; ++row) {
                    for (index_t bit = 0; bit < shape.cols * Bits; ++bit) {
                        unsigned const c = codes[static_cast<std::size_t>(row * shape.cols + bit / Bits)];
                        expected[static_cast<std::size_t>(bit / 32 * shape.rows + row)] |= (c >> (bit % Bits) & 1U)
                                                                                           << (bit % 32);
                    }
                }
                // Zeros fill up the last words, whatever was in their place.
                std::vector<std::uint32_t> words(expected.size(), 0xFFFFFFFF);
                ASSERT_EQ(gptq_packing<Bits>::bytes(shape), std::ssize(words) * 4);
                gptq_packing<Bits>::pack(codes.data(), shape, reinterpret_cast<std::uint8_t*>(words.data()));
                ASSERT_EQ(words, expected);
            }
        });
    }
}

TEST(gptq_packing, codes_10_and_21_of_3_bits_straddle_words) {
    // Two outputs of 32 inputs: all 0 but for codes 10 and 21 of the second.
    code codes[64] = {};
    codes[32 + 10] = 5; // 01 into the highest bits of the first word, 1 into the lowest of the second
    codes[32 + 21] = 6; // 0 into the highest bit of the second word, 11 into the lowest of the third
    std::uint32_t words[6];
    gptq_packing<3>::pack(codes, {2, 32}, reinterpret_cast<std::uint8_t*>(words));
    std::uint32_t const expected[6] = {0, 0x40000000, 0, 0x00000001, 0, 0x00000003};
    for (int i = 0; i < 6; ++i) {
        EXPECT_EQ(words[i], expected[i]) << i;
    }
}

TEST(gptq_packing, known_bytes_of_4_bits) {
    // Outputs 0 and 1 of nine inputs: the ninth is alone in a second word.
    code const codes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2};
    std::uint8_t bytes[16];
    gptq_packing<4>::pack(codes, {2, 9}, bytes);
    std::uint8_t const expected[] = {0x21, 0x43, 0x65, 0x87, 0xBA, 0xDC, 0xFE, 0x10, 9, 0, 0, 0, 2, 0, 0, 0};
    EXPECT_TRUE(std::ranges::equal(bytes, expected));
}

TEST(gptq_packing, a_real_file_is_unpacked_and_packed_to_the_same_bytes) {
    test::expect_bytes_of_real_file<gptq_packing<4>>("gptq-v1-asym", [](io::tensor_view const& t) {
        return extents{t.shape[1], t.shape[0] * 8};
    });
}

} // namespace
