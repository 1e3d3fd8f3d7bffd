// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <tuple>

#include <gtest/gtest.h>

#include "detent/core/error.hpp"
#include "detent/pack/awq.hpp"
#include "detent/pack/ggml.hpp"
#include "detent/pack/gptq.hpp"
#include "detent/pack/repack.hpp"
#include "pack/packings.hpp"

namespace {

using namespace detent;

/// Repacking gives the bytes of unpacking and packing, and writes no others.
template <class From, class To> void expect_repacked(extents shape, index_t offset) {
    auto const codes = test::random_codes(From::bits, shape.size());
    std::vector<std::uint8_t> from(static_cast<std::size_t>(From::bytes(shape)));
    From::pack(codes.data(), shape, from.data());
    std::vector<std::uint8_t> expected(static_cast<std::size_t>(To::bytes(shape)) + 128, 0xA5);
    std::vector<std::uint8_t> to = expected;
    To::pack(codes.data(), shape, expected.data() + offset);
    repack<From, To>(from.data(), shape, to.data() + offset);
    ASSERT_EQ(to, expected) << From::bits << " bits, (" << shape.rows << ", " << shape.cols << ")";
}

/// From each to each.
template <class... P> void expect_all_repacked(extents shape, index_t offset) {
    auto const to_all = [&]<class From>(std::tuple<From>*) { (expect_repacked<From, P>(shape, offset), ...); };
    (to_all(static_cast<std::tuple<P>*>(nullptr)), ...);
}

TEST(repack, equals_unpacking_and_packing) {
    for (extents const shape :
         {extents{0, 64}, {3, 0}, {1, 1}, {7, 31}, {9, 75}, {128, 256}, {700, 1111}, {130, 2050}}) {
        for (int bits = 1; bits <= 8; ++bits) {
            with_bits(bits,
                      [&]<int Bits> { expect_all_repacked<linear_packing<Bits>, gptq_packing<Bits>>(shape, bits); });
        }
        expect_all_repacked<linear_packing<4>, gptq_packing<4>, awq_packing>(shape, shape.cols % 3 * 4);
    }
    for (extents const shape : {extents{1, 32}, {9, 96}, {128, 1024}, {530, 2080}}) {
        expect_all_repacked<linear_packing<4>, gptq_packing<4>, awq_packing, ggml_packing<4>, ggml_packing<4, 18>>(
            shape, 0);
        expect_all_repacked<linear_packing<5>, gptq_packing<5>, ggml_packing<5>, ggml_packing<5, 22>>(shape, 0);
        expect_all_repacked<linear_packing<8>, gptq_packing<8>, ggml_packing<8>, ggml_packing<8, 34>>(shape, 0);
    }
    for (extents const shape : {extents{1, 256}, {130, 1536}}) {
        expect_all_repacked<linear_packing<2>, gptq_packing<2>, ggml_packing<2>, ggml_packing<2, 66>>(shape, 0);
        expect_all_repacked<linear_packing<1>, gptq_packing<1>, ggml_packing<1>, ggml_packing<1, 18>>(shape, 0);
    }
}

TEST(repack, bits_after_the_last_code_of_a_linear_row_do_not_matter) {
    constexpr extents shape{9, 37};
    auto const codes = test::random_codes(3, shape.size());
    std::vector<std::uint8_t> linear(static_cast<std::size_t>(linear_packing<3>::bytes(shape)));
    linear_packing<3>::pack(codes.data(), shape, linear.data());
    std::vector<std::uint8_t> expected(static_cast<std::size_t>(gptq_packing<3>::bytes(shape)));
    repack<linear_packing<3>, gptq_packing<3>>(linear.data(), shape, expected.data());
    for (std::size_t row = 0; row < 9; ++row) {
        linear[row * 14 + 13] |= 0x80; // 111 bits in 14 bytes
    }
    auto words = expected;
    repack<linear_packing<3>, gptq_packing<3>>(linear.data(), shape, words.data());
    EXPECT_EQ(words, expected);
}

TEST(repack, refuses_a_shape_before_it_writes) {
    std::vector<std::uint8_t> const from(1000);
    std::vector<std::uint8_t> to(1000, 0xA5);
    EXPECT_THROW((repack<linear_packing<4>, ggml_packing<4>>(from.data(), {2, 40}, to.data())), error);
    EXPECT_THROW((repack<ggml_packing<4>, linear_packing<4>>(from.data(), {2, 40}, to.data())), error);
    EXPECT_EQ(to, std::vector<std::uint8_t>(1000, 0xA5));
}

} // namespace
