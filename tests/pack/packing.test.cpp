// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/pack/packing.hpp"
#include "detent/pack/repack.hpp"
#include "pack/packings.hpp"

namespace {

using namespace detent;

/// A user's own: the rows of a linear packing from the last one to the first.
struct upside_down_packing : packed_by_blocks<upside_down_packing> {
    static constexpr int bits = 3;
    using linear = linear_packing<bits>;

    static index_t bytes(extents shape) { return linear::bytes(shape); }
    static code get(std::uint8_t const* bytes, extents shape, index_t row, index_t col) {
        return linear::get(bytes, shape, shape.rows - 1 - row, col);
    }
    static void to_linear(std::uint8_t const* bytes, extents shape, code_block const& block, std::uint8_t* to,
                          index_t stride, simd::destination where) {
        for (index_t r = 0; r < block.shape.rows; ++r) {
            linear::to_linear(bytes, shape, row_of(block, shape, r), to + r * stride, stride, where);
        }
    }
    static void from_linear(std::uint8_t const* from, index_t stride, code_block const& block, std::uint8_t* bytes,
                            extents shape) {
        for (index_t r = 0; r < block.shape.rows; ++r) {
            linear::from_linear(from + r * stride, stride, row_of(block, shape, r), bytes, shape);
        }
    }
    static code_block row_of(code_block const& block, extents shape, index_t r) {
        return {shape.rows - 1 - block.row - r, block.col, {1, block.shape.cols}};
    }
};
static_assert(Packing<upside_down_packing>);
static_assert(Packing<linear_packing<3>>);
static_assert(!Packing<code_block>);

TEST(packing, a_users_own_packs_unpacks_and_repacks) {
    for (extents const shape : test::ragged_shapes()) {
        test::expect_round_trip<upside_down_packing>(shape);
    }
    constexpr extents shape{2, 5};
    code const codes[] = {1, 2, 3, 4, 5, 6, 7, 0, 1, 2};
    code const swapped[] = {6, 7, 0, 1, 2, 1, 2, 3, 4, 5};
    std::uint8_t bytes[4];
    std::uint8_t turned[4];
    std::uint8_t expected[4];
    upside_down_packing::pack(codes, shape, bytes);
    linear_packing<3>::pack(swapped, shape, expected);
    EXPECT_TRUE(std::ranges::equal(bytes, expected));
    repack<upside_down_packing, linear_packing<3>>(bytes, shape, turned);
    linear_packing<3>::pack(codes, shape, expected);
    EXPECT_TRUE(std::ranges::equal(turned, expected));
}

} // namespace
