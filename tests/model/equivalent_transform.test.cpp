// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/model/block_flow.hpp"
#include "detent/model/equivalent_transform.hpp"
#include "model/block_cases.hpp"
#include "model/random_transform.hpp"

namespace detent {
namespace {

using test::matrix64;
using test::vector64;

void expect_equivalent(dense_block<double> const& b) {
    auto t = test::random_transform(b);
    for (auto* const scale : {&t.attention.scale, &t.context.scale, &t.key_scale, &t.mlp.scale}) {
        if (scale->size() > 0) {
            (*scale)(1) *= -1; // scales may be negative
        }
    }
    auto const made = t.apply(b);
    EXPECT_GT((made.output.weight - b.output.weight).norm(), 1e-3 * b.output.weight.norm());
    EXPECT_EQ(t.mlp.scale.size() > 0,
              made.mlps.front().up.weight.cols() > 0 && scale_obstacle(b, site::mlp_input).empty());
    matrix64 const x = test::random_matrix64(2 * 6, b.query.weight.cols(), 3);
    auto const run = [&](dense_block<double> const& of) {
        block_tape<double> tape;
        return forward(of, x, {.sequences = 2}, tape);
    };
    matrix64 const expected = run(b);
    EXPECT_LE((run(made) - expected).norm(), 1e-9 * expected.norm());
}

class transformed_block : public testing::TestWithParam<test::block_case> {};
INSTANTIATE_TEST_SUITE_P(small, transformed_block, testing::ValuesIn(test::small_blocks()), test::case_name);
INSTANTIATE_TEST_SUITE_P(family, transformed_block, testing::ValuesIn(test::family_blocks()), test::case_name);

TEST_P(transformed_block, computes_what_it_did) { expect_equivalent(GetParam().make()); }

TEST(equivalent_transform, is_none_where_nothing_is_transformed) {
    dense_block<double> const b = test::small_blocks().front().make();
    equivalent_transform<double> const none;
    EXPECT_TRUE(none.empty());
    EXPECT_FALSE(test::random_transform(b).empty());
    dense_block<double> const made = none.apply(b);
    for (layer_place const place : b.places()) {
        EXPECT_EQ(made.linear(place).weight, b.linear(place).weight);
    }
}

TEST(equivalent_transform, keeps_its_scales_away_from_0) {
    equivalent_transform<double> t;
    t.attention.scale = vector64::Constant(3, -1e-9);
    t.mlp.scale = vector64::Constant(3, 1e-9);
    t.hidden = {vector64::Constant(3, -2.0)};
    t.keep_invertible();
    EXPECT_EQ(t.attention.scale, vector64::Constant(3, -1e-2));
    EXPECT_EQ(t.mlp.scale, vector64::Constant(3, 1e-2));
    EXPECT_EQ(t.hidden.front(), vector64::Constant(3, 1e-2));
}

} // namespace
} // namespace detent
