// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <variant>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

struct no_tile : std::monostate {}; // regular, but nothing else
static_assert(Granularity<per_tensor> && Granularity<per_channel> && Granularity<per_token> &&
              Granularity<per_group<128>> && Granularity<per_group<>> && Granularity<per_block<2, 3>> &&
              Granularity<per_block<>> && Granularity<per_tile>);
static_assert(!Granularity<no_tile> && !Granularity<int>);

TEST(granularity, tile_shapes) {
    extents const shape{40, 300};
    EXPECT_EQ(per_tensor::tile(shape), shape);
    EXPECT_EQ(per_channel::tile(shape), (extents{1, 300}));
    EXPECT_EQ(per_token::tile(shape), (extents{1, 300})); // of 40 tokens
    EXPECT_EQ(per_token::tile({0, 300}), (extents{1, 300}));
    EXPECT_EQ(per_group<128>::tile(shape), (extents{1, 128}));
    EXPECT_EQ((per_block<16, 32>::tile(shape)), (extents{16, 32}));
    EXPECT_EQ(per_group<>{}.width, 128);
    EXPECT_EQ(per_block<>{}.tile(shape), (extents{32, 32}));
    EXPECT_EQ(per_tile{}.tile(shape), (extents{1, 300}));
}

TEST(granularity, a_tile_is_no_larger_than_the_matrix) {
    extents const shape{5, 7};
    EXPECT_EQ(per_group<128>::tile(shape), (extents{1, 7}));
    EXPECT_EQ(per_group<>{128}.tile(shape), (extents{1, 7}));
    EXPECT_EQ((per_block<4, 32>::tile(shape)), (extents{4, 7}));
    EXPECT_EQ((per_block<32, 4>::tile(shape)), (extents{5, 4}));
    EXPECT_EQ((per_block<>{32, 32}.tile(shape)), shape);
    EXPECT_EQ((per_tile{32, 4}.tile(shape)), (extents{5, 4}));
}

TEST(granularity, tiles_have_weights) {
    auto const message = [](auto const& granularity) {
        return failure_message([&] { static_cast<void>(granularity.tile({5, 7})); });
    };
    EXPECT_EQ(message(per_group<>{0}), "per_group: its width is 0, not positive");
    EXPECT_EQ(message(per_group<>{-5}), "per_group: its width is -5, not positive");
    EXPECT_EQ(message(per_block<>{0, 3}), "per_block: its number of rows is 0, not positive");
    EXPECT_EQ(message(per_block<>{3, -1}), "per_block: its number of columns is -1, not positive");
    EXPECT_EQ(message(per_tile{-1, 3}), "per_tile: its number of rows is -1, not 0 or more");
    EXPECT_EQ(message(per_tile{1, -3}), "per_tile: its number of columns is -3, not 0 or more");
}

TEST(granularity, a_type_tells_the_columns_of_its_tiles) {
    static_assert(cols_in_type<per_tensor> == 0 && cols_in_type<per_channel> == 0);
    static_assert(cols_in_type<per_group<48>> == 48 && cols_in_type<per_block<6, 48>> == 48);
    static_assert(cols_in_type<per_group<>> == dynamic && cols_in_type<per_block<>> == dynamic);
    static_assert(cols_in_type<per_tile> == dynamic);
}

TEST(granularity, values_and_types_agree) {
    for (extents const shape : {extents{1, 1}, {1, 300}, {300, 1}, {5, 7}, {40, 129}}) {
        EXPECT_EQ((per_tile{0, 0}.tile(shape)), per_tensor::tile(shape));
        EXPECT_EQ((per_tile{1, 0}.tile(shape)), per_channel::tile(shape));
        EXPECT_EQ((per_tile{1, 0}.tile(shape)), per_token::tile(shape));
        EXPECT_EQ((per_tile{1, 48}.tile(shape)), per_group<48>::tile(shape));
        EXPECT_EQ(per_group<>{48}.tile(shape), per_group<48>::tile(shape));
        EXPECT_EQ((per_tile{6, 48}.tile(shape)), (per_block<6, 48>::tile(shape)));
        EXPECT_EQ((per_block<>{6, 48}.tile(shape)), (per_block<6, 48>::tile(shape)));
    }
}

} // namespace
