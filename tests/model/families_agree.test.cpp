// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/generate.hpp"
#include "detent/model/load.hpp"
#include "detent/nn/softmax.hpp"
#include "model/family_fixtures.hpp"

namespace detent {
namespace {

constexpr index_t windows = 4;
constexpr index_t length = 64;

class decoder_family_fixture : public testing::TestWithParam<test::family_fixture> {
protected:
    std::vector<nn::token_id> const tokens_ = test::family_tokens();
    decoder const model_ = load_decoder(GetParam().directory);
};
INSTANTIATE_TEST_SUITE_P(, decoder_family_fixture, testing::ValuesIn(test::family_fixtures("decoder")),
                         test::fixture_name);

TEST_P(decoder_family_fixture, computes_what_transformers_computes) {
    ASSERT_EQ(std::ssize(tokens_), windows * length);
    matrix const logits = model_.forward(tokens_, windows); // (token, vocabulary)
    double const perplexity = std::exp(nn::next_token_loss(logits, tokens_, windows) / (windows * (length - 1)));
    double const expected = GetParam().reference().at("perplexity").get<double>();
    EXPECT_NEAR(perplexity, expected, 1e-4 * expected);

    matrix const first = GetParam().floats("logits.f32", length);
    ASSERT_EQ(first.cols(), logits.cols());
    EXPECT_LE((logits.topRows(length) - first).cwiseAbs().maxCoeff(), 2e-4F * first.cwiseAbs().maxCoeff());
}

TEST_P(decoder_family_fixture, generates_with_a_cache_what_the_whole_sequence_says) {
    auto const first = std::span(tokens_).first(length);
    matrix const last = model_.forward(first).bottomRows(1); // a rotary law may depend on the length
    float const tolerance = 1e-4F * last.cwiseAbs().maxCoeff();
    kv_cache cache(model_.configuration, length);
    for (index_t t = 0; t < length; ++t) {
        matrix const logits = model_.forward(first.subspan(static_cast<std::size_t>(t), 1), cache);
        matrix const whole = model_.forward(first.first(static_cast<std::size_t>(t) + 1)).bottomRows(1);
        ASSERT_LE((logits - whole).cwiseAbs().maxCoeff(), tolerance) << t;
    }
}

TEST_P(decoder_family_fixture, generates_the_likeliest_tokens) {
    auto const prompt = std::span(tokens_).first(24);
    std::vector<nn::token_id> sequence(prompt.begin(), prompt.end());
    decoder endless = model_;
    endless.configuration.end_of_text.clear();
    for (nn::token_id const token : generate(endless, prompt, 16)) {
        index_t best = 0;
        endless.forward(sequence).bottomRows(1).row(0).maxCoeff(&best);
        ASSERT_EQ(token, best) << sequence.size();
        sequence.push_back(token);
    }
    EXPECT_EQ(sequence.size(), prompt.size() + 16);
}

} // namespace
} // namespace detent
