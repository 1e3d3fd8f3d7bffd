// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <set>

#include <gtest/gtest.h>

#include "detent/model/generate.hpp"
#include "detent/quantizer/find_kv_format.hpp"
#include "random_decoder.hpp"

namespace detent {

namespace {

auto const prompt = test::some_tokens(5);

} // namespace

TEST(generate, greedy_takes_the_largest_logit_of_the_whole_sequence) {
    auto const model = test::random_decoder(test::llama_json());
    auto sequence = prompt;
    auto const generated = generate(model, prompt, 20);
    ASSERT_EQ(generated.size(), 20U);
    for (auto const token : generated) {
        index_t best = 0;
        model.forward(sequence).bottomRows(1).row(0).maxCoeff(&best);
        EXPECT_EQ(token, best);
        sequence.push_back(token);
    }
}

TEST(generate, takes_a_cache_of_any_format) {
    for (auto const& json : {test::llama_json(), test::opt_json()}) {
        auto const model = test::random_decoder(json);
        auto const run = [&](char const* format) {
            return generate(
                model, prompt, 20, {}, [](nn::token_id) { return true; }, {}, find_kv_format(format));
        };
        EXPECT_EQ(run("float"), generate(model, prompt, 20));
        for (auto const* const format : {"f16", "int8", "int4"}) {
            auto const tokens = run(format);
            EXPECT_EQ(tokens.size(), 20U);
            EXPECT_EQ(tokens, run(format));
        }
        EXPECT_THROW(run("int4:g-1"), error);
    }
}

TEST(decoder, through_a_cache_of_codes_is_close_to_the_whole_sequence) {
    auto const model = test::random_decoder(test::llama_json());
    auto const tokens = test::some_tokens(30);
    matrix const expected = model.forward(tokens); // (token, vocabulary)
    for (auto const& [format, tolerance] : {std::pair{"float", 1e-5F}, {"int8", 0.02F}, {"int4", 0.3F}}) {
        kv_cache cache(model.configuration, 30, find_kv_format(format));
        matrix got(30, expected.cols());
        for (index_t t = 0; t < 30; ++t) {
            got.row(t) = model.forward(std::span(tokens).subspan(static_cast<std::size_t>(t), 1), cache);
        }
        EXPECT_LE((got - expected).norm(), tolerance * expected.norm()) << format;
    }
}

TEST(generate, a_seed_decides_the_tokens) {
    auto const model = test::random_decoder(test::opt_json());
    std::set<std::vector<nn::token_id>> different;
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
        auto const tokens = generate(model, prompt, 20, {.temperature = 1.0F, .seed = seed});
        EXPECT_EQ(tokens, generate(model, prompt, 20, {.temperature = 1.0F, .seed = seed}));
        different.insert(tokens);
    }
    EXPECT_EQ(different.size(), 5U);
}

TEST(generate, draws_follow_the_distribution) {
    // Probabilities 1/2, 1/3, 1/6 at temperature 2.
    matrix logits(1, 3);
    logits << 2 * std::log(3.0F), 2 * std::log(2.0F), 0.0F;
    sampler draw({.temperature = 2.0F, .seed = 3});
    std::array<int, 3> counts{};
    for (int i = 0; i < 60000; ++i) {
        ++counts[static_cast<std::size_t>(draw(logits))];
    }
    EXPECT_NEAR(counts[0], 30000, 500); // 4 standard deviations
    EXPECT_NEAR(counts[1], 20000, 500);
    EXPECT_NEAR(counts[2], 10000, 400);
}

TEST(generate, greedy_breaks_ties_by_the_lowest_id) { EXPECT_EQ(sampler({})(matrix{{0.0F, 2.0F, 2.0F}}), 1); }

TEST(generate, stops_when_told_at_the_end_of_text_and_at_the_longest_sequence) {
    auto model = test::random_decoder(test::llama_json());
    auto const free = generate(model, prompt, 1000);
    EXPECT_EQ(free.size(), 36U); // 40 positions hold 5 + 35; one more token is answered without being read
    EXPECT_TRUE(generate(model, prompt, 0).empty());

    std::vector<nn::token_id> streamed;
    auto const stopped = generate(model, prompt, 1000, {}, [&](nn::token_id token) {
        streamed.push_back(token);
        return streamed.size() < 3;
    });
    EXPECT_EQ(streamed, stopped);
    EXPECT_EQ(stopped, std::vector<nn::token_id>(free.begin(), free.begin() + 3));

    model.configuration.end_of_text = {free[4]};
    auto const ended = generate(model, prompt, 1000);
    EXPECT_EQ(ended.back(), free[4]);
    EXPECT_LE(ended.size(), 5U);
    EXPECT_THROW(generate(model, test::some_tokens(41), 1), error);
}

} // namespace detent
