// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/load_encoder.hpp"
#include "model/family_fixtures.hpp"

namespace detent {
namespace {

void expect_agree(matrix const& made, matrix const& expected) {
    ASSERT_EQ(shape_of(made), shape_of(expected));
    EXPECT_LE((made - expected).cwiseAbs().maxCoeff(), 2e-4F * expected.cwiseAbs().maxCoeff());
}

class text_encoder_fixture : public testing::TestWithParam<test::family_fixture> {};
INSTANTIATE_TEST_SUITE_P(, text_encoder_fixture, testing::ValuesIn(test::family_fixtures("text")), test::fixture_name);

TEST_P(text_encoder_fixture, computes_what_transformers_computes) {
    constexpr index_t length = 64;
    std::vector<nn::token_id> const tokens = test::family_tokens();
    auto const model = load_text_encoder(GetParam().directory);
    matrix const expected = GetParam().floats("hidden.f32", length);
    expect_agree(model.forward(std::span(tokens).first(length)), expected);
    expect_agree(model.forward(tokens, 4).topRows(length), expected);
}

class image_encoder_fixture : public testing::TestWithParam<test::family_fixture> {};
INSTANTIATE_TEST_SUITE_P(, image_encoder_fixture, testing::ValuesIn(test::family_fixtures("image")),
                         test::fixture_name);

TEST_P(image_encoder_fixture, computes_what_transformers_computes) {
    auto const model = load_image_encoder(GetParam().directory);
    matrix const images = GetParam().floats("images.f32", 2);
    matrix const hidden = model.forward(images);
    if (model.classifier) {
        expect_agree(model.logits(hidden), GetParam().floats("logits.f32", 2));
    } else {
        expect_agree(model.normalized(hidden), GetParam().floats("hidden.f32", hidden.rows()));
    }
}

} // namespace
} // namespace detent
