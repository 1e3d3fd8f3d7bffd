// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/linear.hpp"
#include "io/failure_message.hpp"
#include "pack/packings.hpp"
#include "pack/random_codes.hpp"

namespace {

using namespace detent;
using test::random_codes;

/// Calls `f.operator()<Bits>(n)` for all widths and many lengths.
template <class F> void for_all_rows(F f) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (index_t n = 0; n <= 257; ++n) {
            with_bits(bits, [&]<int Bits> { f.template operator()<Bits>(n); });
        }
    }
}

TEST(linear_packing, bit_b_of_code_i_is_bit_i_times_bits_plus_b_of_the_stream) {
    for_all_rows([]<int Bits>(index_t n) {
        using packing = linear_packing<Bits>;
        auto const codes = random_codes(Bits, n);
        ASSERT_EQ(packing::row_bytes(n), (n * Bits + 7) / 8);
        std::vector<std::uint8_t> expected(static_cast<std::size_t>(packing::row_bytes(n)));
        for (index_t i = 0; i < n; ++i) {
            for (int b = 0; b < Bits; ++b) {
                auto const position = static_cast<std::size_t>(i * Bits + b);
                unsigned const bit = (codes[static_cast<std::size_t>(i)] >> b) & 1U;
                expected[position / 8] = static_cast<std::uint8_t>(expected[position / 8] | bit << (position % 8));
            }
        }
        std::vector<std::uint8_t> bytes(expected.size(), 0xFF);
        packing::pack(codes.data(), n, bytes.data());
        ASSERT_EQ(bytes, expected) << Bits << " bits, " << n << " codes";
        for (index_t i = 0; i < n; ++i) {
            ASSERT_EQ(packing::get(bytes.data(), i), codes[static_cast<std::size_t>(i)]);
        }
    });
}

TEST(linear_packing, unpack_undoes_pack_and_neither_writes_past_its_end) {
    for_all_rows([]<int Bits>(index_t n) {
        using packing = linear_packing<Bits>;
        auto const codes = random_codes(Bits, n);
        auto const row_bytes = static_cast<std::size_t>(packing::row_bytes(n));
        std::vector<std::uint8_t> bytes(row_bytes + 16, 0xA5);
        packing::pack(codes.data(), n, bytes.data());
        ASSERT_EQ(std::vector(bytes.begin() + static_cast<index_t>(row_bytes), bytes.end()),
                  std::vector<std::uint8_t>(16, 0xA5));
        auto result = std::vector<code>(codes.size() + 16, 0xA5);
        // A row of exactly its bytes, so that a sanitizer sees reads past the end.
        packing::unpack(std::vector(bytes.begin(), bytes.begin() + static_cast<index_t>(row_bytes)).data(), n,
                        result.data());
        ASSERT_EQ(std::vector(result.begin() + n, result.end()), std::vector<code>(16, 0xA5));
        result.resize(codes.size());
        ASSERT_EQ(result, codes) << Bits << " bits, " << n << " codes";
    });
}

TEST(linear_packing, three_bits_have_gptqs_layout) {
    auto const codes = random_codes(3, 32);
    std::uint32_t words[3] = {};
    linear_packing<3>::pack(codes.data(), 32, reinterpret_cast<std::uint8_t*>(words));
    auto const c = [&](int i) { return std::uint32_t{codes[static_cast<std::size_t>(i)]}; };
    std::uint32_t expected[3] = {};
    for (int i = 0; i < 10; ++i) {
        expected[0] |= c(i) << (3 * i);
        expected[1] |= c(11 + i) << (1 + 3 * i);
        expected[2] |= c(22 + i) << (2 + 3 * i);
    }
    expected[0] |= (c(10) & 3) << 30;
    expected[1] |= c(10) >> 2 | (c(21) & 1) << 31;
    expected[2] |= c(21) >> 1;
    EXPECT_EQ(words[0], expected[0]);
    EXPECT_EQ(words[1], expected[1]);
    EXPECT_EQ(words[2], expected[2]);
}

TEST(linear_packing, known_bytes) {
    code const codes[] = {1, 2, 3, 4, 15};
    std::uint8_t bytes[3] = {};
    linear_packing<4>::pack(codes, 5, bytes);
    EXPECT_EQ(bytes[0], 0x21);
    EXPECT_EQ(bytes[1], 0x43);
    EXPECT_EQ(bytes[2], 0x0F);
}

TEST(linear_packing, a_matrix_is_its_rows) {
    for (int bits = 1; bits <= 8; ++bits) {
        with_bits(bits, []<int Bits> {
            using packing = linear_packing<Bits>;
            for (extents const shape : {extents{0, 5}, {3, 0}, {1, 8}, {5, 37}, {7, 300}}) {
                test::expect_round_trip<packing>(shape);
                auto const codes = random_codes(Bits, shape.size());
                index_t const row_bytes = packing::row_bytes(shape.cols);
                std::vector<std::uint8_t> bytes(static_cast<std::size_t>(packing::bytes(shape)));
                std::vector<std::uint8_t> expected = bytes;
                packing::pack(codes.data(), shape, bytes.data());
                for (index_t row = 0; row < shape.rows; ++row) {
                    packing::pack(codes.data() + row * shape.cols, shape.cols, expected.data() + row * row_bytes);
                }
                ASSERT_EQ(bytes, expected);
            }
        });
    }
}

TEST(linear_packing, copies_blocks_and_leaves_out_what_follows_the_last_code) {
    constexpr extents shape{130, 300};
    auto const codes = random_codes(3, shape.size());
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(linear_packing<3>::bytes(shape)));
    linear_packing<3>::pack(codes.data(), shape, bytes.data());
    auto copy = std::vector<std::uint8_t>(bytes.size(), 0xA5);
    for_each_code_block(shape, code_block::col_step, [&](code_block const& block) {
        index_t const stride = 200; // 256 codes of 3 bits are 96 bytes
        std::vector<std::uint8_t> rows(static_cast<std::size_t>(block.shape.rows * stride), 0xA5);
        linear_packing<3>::to_linear(bytes.data(), shape, block, rows.data(), stride, simd::destination::cache);
        for (index_t r = 0; r < block.shape.rows; ++r) {
            for (index_t c = 0; c < block.shape.cols; ++c) {
                ASSERT_EQ(linear_packing<3>::get(rows.data() + r * stride, c),
                          linear_packing<3>::get(bytes.data(), shape, block.row + r, block.col + c));
            }
            auto const used = static_cast<std::size_t>(r * stride + linear_packing<3>::row_bytes(block.shape.cols));
            ASSERT_EQ(rows[used], 0xA5);
            if (block.shape.cols == 44) { // 132 bits
                rows[used - 1] |= 0xF0;
            }
        }
        linear_packing<3>::from_linear(rows.data(), stride, block, copy.data(), shape);
    });
    EXPECT_EQ(copy, bytes);
}

TEST(with_bits, turns_a_number_into_a_type) {
    for (int bits = 1; bits <= 8; ++bits) {
        EXPECT_EQ(with_bits(bits, []<int Bits> { return Bits; }), bits);
    }
}

TEST(linear_packing, wrong_bits_and_shapes_are_named) {
    EXPECT_EQ(failure_message([] { with_bits(9, []<int Bits> { return Bits; }); }),
              "code: its number of bits is 9, not from 1 to 8");
    EXPECT_EQ(failure_message([] { with_bits(0, []<int Bits> { return Bits; }); }),
              "code: its number of bits is 0, not from 1 to 8");
    EXPECT_EQ(failure_message([] {
                  static_cast<void>(linear_packing<3>::bytes({-1, 8}));
              }),
              "matrix of codes: has a negative shape");
}

} // namespace
