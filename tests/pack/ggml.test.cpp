// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <bit>
#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "detent/core/half.hpp"
#include "detent/pack/ggml.hpp"
#include "golden/ggml_rows.hpp"
#include "pack/packings.hpp"

namespace {

using namespace detent;

template <Packing P> void expect_round_trips() {
    for (extents const shape : test::ragged_shapes(P::block_codes)) {
        if (shape.size() <= 1 << 14) {
            test::expect_round_trip<P>(shape, shape.cols / P::block_codes % 3);
        }
    }
}

TEST(ggml_packing, round_trip_of_all_widths_and_shapes) {
    expect_round_trips<ggml_packing<1>>();
    expect_round_trips<ggml_packing<2>>();
    expect_round_trips<ggml_packing<4>>();
    expect_round_trips<ggml_packing<5>>();
    expect_round_trips<ggml_packing<8>>();
}

TEST(ggml_packing, a_row_of_no_whole_blocks_is_refused) {
    try {
        ggml_packing<4>::bytes({2, 100});
        FAIL() << "nothing was thrown";
    } catch (error const& e) {
        EXPECT_EQ(e.subject(), "a row of 100 codes of 4 bits");
        EXPECT_NE(std::string(e.what()).find("not of whole ggml blocks, which have 32"), std::string::npos) << e.what();
    }
    code const codes[200] = {};
    std::uint8_t bytes[200];
    EXPECT_THROW(ggml_packing<4>::pack(codes, {2, 100}, bytes), error);
    EXPECT_THROW(ggml_packing<2>::bytes({1, 128}), error);
    EXPECT_THROW(ggml_packing<1>::bytes({1, 64}), error);
    EXPECT_EQ(ggml_packing<4>::bytes({2, 0}), 0);
}

TEST(ggml_packing, known_bytes) {
    code codes[32];
    for (int i = 0; i < 32; ++i) {
        codes[i] = static_cast<code>(i % 16 == 0 ? 16 + i / 16 : i); // 16, 1, 2, ..., 15, 17, 17, ..., 31
    }
    std::uint8_t bytes[20];
    ggml_packing<5>::pack(codes, {1, 32}, bytes);
    // The highest bits: of code 0 and of codes 16 to 31. Then code j below and code j + 16 above.
    std::uint8_t const fives[] = {0x01, 0x00, 0xFF, 0xFF, 0x10, 0x11, 0x22, 0x33, 0x44, 0x55,
                                  0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF};
    EXPECT_TRUE(std::ranges::equal(bytes, fives));
}

TEST(ggml_packing, what_is_between_the_codes_of_blocks_stays) {
    constexpr extents shape{3, 96};
    auto const codes = test::random_codes(4, shape.size());
    std::vector<std::uint8_t> dense(9 * 16);
    std::vector<std::uint8_t> blocks(9 * 18, 0xA5); // a scale of two bytes, then the codes
    ggml_packing<4>::pack(codes.data(), shape, dense.data());
    ASSERT_EQ((ggml_packing<4, 18>::bytes(shape)), 9 * 18 - 2);
    ggml_packing<4, 18>::pack(codes.data(), shape, blocks.data() + 2);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_EQ(blocks[i], i % 18 < 2 ? 0xA5 : dense[i / 18 * 16 + i % 18 - 2]);
    }
    for (index_t row = 0; row < shape.rows; ++row) {
        for (index_t col = 0; col < shape.cols; ++col) {
            EXPECT_EQ((ggml_packing<4, 18>::get(blocks.data() + 2, shape, row, col)),
                      codes[static_cast<std::size_t>(row * shape.cols + col)]);
        }
    }
    std::vector<code> again(codes.size());
    ggml_packing<4, 18>::unpack(blocks.data() + 2, shape, again.data());
    EXPECT_EQ(again, codes);
}

float half_at(std::uint8_t const* bytes) {
    half h;
    std::memcpy(&h, bytes, 2);
    return static_cast<float>(h);
}

/// The codes of a row that ggml made are those of the numbers that it reads: number i of a block is `decode(block,
/// code, i)`. Packing them over any other codes gives the same bytes.
template <int Bits, index_t Place, index_t Stride>
void expect_golden(test::golden_row const& row, std::function<float(std::uint8_t const*, int, index_t)> const& decode) {
    using packing = ggml_packing<Bits, Stride>;
    constexpr extents shape{1, 512};
    ASSERT_EQ(std::ssize(row.numbers), 512);
    ASSERT_LE(Place + packing::bytes(shape), std::ssize(row.bytes));
    std::vector<code> codes(512);
    packing::unpack(row.bytes.data() + Place, shape, codes.data());
    for (index_t i = 0; i < 512; ++i) {
        auto const at = static_cast<std::size_t>(i);
        std::uint8_t const* const block = row.bytes.data() + i / packing::block_codes * Stride;
        float const expected = row.numbers[at];
        EXPECT_NEAR(decode(block, codes[at], i % packing::block_codes), expected, 1e-5F * std::abs(expected) + 1e-6F)
            << Bits << " bits, number " << i;
    }
    std::vector<std::uint8_t> bytes = row.bytes;
    packing::pack(std::vector<code>(512).data(), shape, bytes.data() + Place);
    EXPECT_NE(bytes, row.bytes);
    packing::pack(codes.data(), shape, bytes.data() + Place);
    EXPECT_EQ(bytes, row.bytes);
}

TEST(ggml_packing, golden_blocks_of_ggml) {
    auto const& golden = test::golden_rows();
    ASSERT_EQ(golden.size(), 18U);
    using block = std::uint8_t const*;
    expect_golden<4, 2, 18>(golden.at("q4_0"),
                            [](block b, int q, index_t) { return half_at(b) * static_cast<float>(q - 8); });
    expect_golden<4, 4, 20>(
        golden.at("q4_1"), [](block b, int q, index_t) { return half_at(b) * static_cast<float>(q) + half_at(b + 2); });
    expect_golden<5, 2, 22>(golden.at("q5_0"),
                            [](block b, int q, index_t) { return half_at(b) * static_cast<float>(q - 16); });
    expect_golden<5, 4, 24>(
        golden.at("q5_1"), [](block b, int q, index_t) { return half_at(b) * static_cast<float>(q) + half_at(b + 2); });
    expect_golden<8, 2, 34>(golden.at("q8_0"), [](block b, int q, index_t) {
        return half_at(b) * static_cast<float>(static_cast<std::int8_t>(q));
    });
    expect_golden<4, 2, 18>(golden.at("iq4_nl"), [](block b, int q, index_t) {
        constexpr float table[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
        return half_at(b) * table[q];
    });
    expect_golden<4, 1, 17>(golden.at("mxfp4"), [](block b, int q, index_t) {
        constexpr float table[] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
        return std::ldexp(q < 8 ? table[q] : -table[q - 8], b[0] - 127);
    });
    expect_golden<2, 0, 66>(golden.at("tq2_0"),
                            [](block b, int q, index_t) { return half_at(b + 64) * static_cast<float>(q - 1); });
    expect_golden<2, 16, 84>(golden.at("q2_K"), [](block b, int q, index_t i) {
        float const scale = half_at(b + 80) * static_cast<float>(b[i / 16] & 15);
        return scale * static_cast<float>(q) - half_at(b + 82) * static_cast<float>(b[i / 16] >> 4);
    });
    expect_golden<1, 2, 18>(golden.at("q1_0"),
                            [](block b, int q, index_t) { return q == 1 ? half_at(b) : -half_at(b); });
}

} // namespace
