// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/quantized_activations.hpp"
#include "matrix/random_activations.hpp"

namespace {

using namespace detent;

TEST(quantized_activations, at_is_number_less_zero_times_scale_below_the_shift) {
    quantized_activations const x{.shape = {2, 3},
                                  .bits = 2,
                                  .table = {0, 1, 2, 3},
                                  .scales = {{0.5F, 1}, {3, 2}},
                                  .shifts = {0, 1, 4},
                                  .codes = {3, 3, 3, 0, 1, 2}};
    EXPECT_EQ(x.at(0, 0), 1.0F);
    EXPECT_EQ(x.at(0, 1), 0.5F);
    EXPECT_EQ(x.at(0, 2), 0.0625F);
    EXPECT_EQ(x.at(1, 0), -6.0F);
    EXPECT_EQ(x.at(1, 1), -1.5F);
    EXPECT_EQ(x.at(1, 2), 0.0F);
}

TEST(quantized_activations, a_single_scale_is_that_of_all_tokens) {
    auto x = test::random_activations(int_grid<4>{}, {3, 5}, false, 0, 1);
    ASSERT_EQ(x.scales.size(), 1U);
    for (index_t token = 0; token < 3; ++token) {
        EXPECT_EQ(x.scale_of(token, 2), x.scales[0]);
        for (index_t feature = 0; feature < 5; ++feature) {
            code const c = x.codes[static_cast<std::size_t>(5 * token + feature)];
            EXPECT_EQ(x.at(token, feature), decode(int_grid<4>{}, c, x.scales[0]));
        }
    }
}

TEST(quantized_activations, groups_of_features_have_scales_of_their_own) {
    for (bool const per_token : {false, true}) {
        auto const x = test::random_activations(int_grid<4>{}, {3, 13}, per_token, 0, 1, 5); // the last group has 3
        ASSERT_EQ(x.groups(), 3);
        ASSERT_EQ(x.scales.size(), per_token ? 9U : 3U);
        for (index_t token = 0; token < 3; ++token) {
            for (index_t feature = 0; feature < 13; ++feature) {
                tile_scale const s = x.scales[static_cast<std::size_t>((per_token ? 3 * token : 0) + feature / 5)];
                EXPECT_EQ(x.scale_of(token, feature), s);
                EXPECT_EQ(x.scale_of_group(token, feature / 5), s);
                code const c = x.codes[static_cast<std::size_t>(13 * token + feature)];
                EXPECT_EQ(x.at(token, feature), decode(int_grid<4>{}, c, s));
            }
        }
    }
}

TEST(quantized_activations, dequantize_is_at_for_every_token_and_feature) {
    for (int const most_shift : {0, 3}) {
        auto const x = test::random_activations(e2m1{}, {4, 7}, true, most_shift, 2, most_shift);
        matrix const dense = dequantize(x);
        ASSERT_EQ(shape_of(dense), (extents{4, 7}));
        for (index_t token = 0; token < 4; ++token) {
            for (index_t feature = 0; feature < 7; ++feature) {
                EXPECT_EQ(dense(token, feature), x.at(token, feature));
            }
        }
    }
}

} // namespace
