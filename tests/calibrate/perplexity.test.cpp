// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/calibrate/perplexity.hpp"

#include <cmath>
#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"

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

TEST(perplexity, of_the_float_models_is_known) {
    EXPECT_NEAR(perplexity(load_decoder(test::model_directory("tiny-llama")), test::evaluation_text(), 512,
                           test::two_threads()),
                3.04303, 1e-4 * 3.04303);
    EXPECT_NEAR(
        perplexity(load_decoder(test::model_directory("tiny-opt")), test::evaluation_text(), 512, test::two_threads()),
        3.00082, 1e-4 * 3.00082);
}

TEST(perplexity, of_stories15M_is_known) {
    std::filesystem::path const directory = DETENT_SHARED_DIR "/models/stories15M";
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << "SKIPPED: there is no stories15M model beside this repository";
    }
    auto const tokens = io::read_tokens(directory / "tinystories_eval.tokens.u16");
    EXPECT_NEAR(perplexity(load_decoder(directory), tokens, 256, test::two_threads()), 4.8814, 1e-4 * 4.8814);
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

} // namespace
} // namespace detent
