// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <filesystem>
#include <numeric>
#include <span>
#include <utility>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/blocks_of_file.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/quantizer/find_kv_format.hpp"

namespace detent {
namespace {

TEST(perplexity, is_exp_of_the_mean_cross_entropy_of_windows) {
    auto const model = load_decoder(test::model_directory("tiny-llama"));
    auto const text = test::evaluation_text();
    index_t const window = 24;
    std::span const tokens = std::span(text).first(24 * 7 + 5); // the rest is no window
    double loss = 0;
    for (index_t w = 0; w < 7; ++w) {
        auto const ids = tokens.subspan(static_cast<std::size_t>(w * window), static_cast<std::size_t>(window));
        matrix const logits = model.forward(ids);
        for (index_t t = 0; t + 1 < window; ++t) {
            Eigen::VectorXd const row = logits.row(t).cast<double>();
            loss += std::log(row.array().exp().sum()) - row(ids[static_cast<std::size_t>(t + 1)]);
        }
    }
    EXPECT_NEAR(perplexity(model, tokens, window, test::two_threads()), std::exp(loss / (7 * 23)), 1e-4);
}

// What Hugging Face transformers 5.12.1 computes of the first 64 windows of 512 bytes.
TEST(perplexity, of_the_float_models_is_known) {
    auto const text = test::evaluation_text();
    std::span const tokens = std::span(text).first(64 * 512);
    for (auto const& [name, expected] : {std::pair("tiny-llama", 2.924048), std::pair("tiny-opt", 2.904085)}) {
        auto const model = load_decoder(test::model_directory(name));
        EXPECT_NEAR(perplexity(model, tokens, 512, test::two_threads()), expected, 1e-5 * expected) << name;
    }
}

TEST(perplexity, of_stories15M_is_known) {
    std::filesystem::path const directory = DETENT_SHARED_DIR "/models/stories15M";
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << "SKIPPED: there is no stories15M model beside this repository";
    }
    auto const tokens = io::read_tokens(directory / "tinystories_eval.tokens.u16");
    EXPECT_NEAR(perplexity(load_decoder(directory), tokens, 256, test::two_threads()), 4.8814, 1e-4 * 4.8814);
}

TEST(cached_perplexity, of_a_float_cache_is_that_without_a_cache) {
    auto const model = load_decoder(test::model_directory("tiny-llama"));
    auto const text = test::evaluation_text();
    std::span const tokens = std::span(text).first(3 * 100 + 7);
    double const expected = perplexity(model, tokens, 100, test::two_threads());
    EXPECT_NEAR(cached_perplexity(model, tokens, 100, {}, test::two_threads()), expected, 1e-5 * expected);
}

TEST(cached_perplexity, of_codes_is_close_to_that_of_floats) {
    auto const model = load_decoder(test::model_directory("tiny-llama"));
    auto const text = test::evaluation_text();
    std::span const tokens = std::span(text).first(4 * 512);
    auto const run = [&](char const* format) {
        return cached_perplexity(model, tokens, 512, find_kv_format(format), test::two_threads());
    };
    double const floats = run("float");
    EXPECT_NEAR(run("int8"), floats, 0.001 * floats);
    EXPECT_NEAR(run("fp8"), floats, 0.01 * floats);
    double const int4 = run("int4");
    EXPECT_GT(std::abs(int4 - floats), 1e-5 * floats);
    EXPECT_NEAR(int4, floats, 0.015 * floats); // of four windows
}

TEST(cached_perplexity, needs_a_whole_window_and_stops_when_told) {
    auto const model = load_decoder(test::model_directory("tiny-opt"));
    std::vector<nn::token_id> const tokens(10);
    EXPECT_THROW(cached_perplexity(model, tokens, 11, {}), error);
    EXPECT_THROW(cached_perplexity(model, tokens, 5, {}, {}, [](std::string_view, double) { return false; }),
                 cancelled);
}

TEST(widest_activation, is_that_of_all_experts_of_a_token_too) {
    model_configuration c{.hidden = 8, .intermediate = 20};
    c.heads = {.heads = 3, .kv_heads = 1, .head_dim = 4};
    EXPECT_EQ(widest_activation(c), 20);
    c.heads.head_dim = 16;
    EXPECT_EQ(widest_activation(c), 48);
    c.experts = expert_configuration{.count = 64, .intermediate = 30, .shared_intermediate = 5};
    c.experts->routing.experts_per_token = 4;
    EXPECT_EQ(widest_activation(c), 125);
}

TEST(perplexity, needs_a_whole_window) {
    auto const model = load_decoder(test::model_directory("tiny-opt"));
    std::vector<nn::token_id> const tokens(10);
    EXPECT_THROW(perplexity(model, tokens, 11), error);
    EXPECT_THROW(perplexity(model, tokens, 1), error);
    EXPECT_THROW(perplexity(model, tokens, 0), error);
}

TEST(perplexity, stops_when_told) {
    auto const model = load_decoder(test::model_directory("tiny-opt"));
    std::vector<nn::token_id> const tokens(512);
    EXPECT_THROW(perplexity(model, tokens, 64, {}, [](std::string_view, double) { return false; }), cancelled);
}

TEST(perplexity, of_blocks_from_a_file_has_the_bits_of_a_model_in_memory) {
    auto const directory = test::model_directory("tiny-llama");
    auto const model = load_decoder(directory);
    auto text = test::evaluation_text();
    text.resize(130 * 64);
    double const expected = perplexity(model, text, 64, test::two_threads());
    decoder_file file(directory);
    decoder const ends = file.take_ends();
    EXPECT_TRUE(ends.blocks.empty());
    for (std::uint64_t const bytes : {std::uint64_t{0}, std::uint64_t{1} << 22, std::uint64_t{1} << 40}) {
        blocks_of_file blocks(file);
        EXPECT_EQ(perplexity(ends, blocks, text, 64, bytes, test::two_threads()), expected);
    }
}

} // namespace
} // namespace detent
