// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/save.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/owq.hpp"

namespace detent {
namespace {

using test::layer_quantizer;

class quantize_tiny : public testing::TestWithParam<std::string> {
protected:
    calibration few(index_t windows) const { return {.tokens = text_, .window = 128, .windows = windows}; }

    std::vector<nn::token_id> const text_ = test::calibration_text();
    decoder model_ = load_decoder(test::model_directory(GetParam()));
};
INSTANTIATE_TEST_SUITE_P(, quantize_tiny, testing::Values("tiny-llama", "tiny-opt"),
                         [](auto const& test) { return test.param == "tiny-llama" ? "llama" : "opt"; });

/// What layers read, in the order of `block::groups`, given the quantized model (`now`) and the block with float
/// weights
/// (`before`).
std::vector<matrix> inputs_of(block const& now, block const& before, matrix const& x, index_t sequences,
                              bool sequential) {
    block const& b = sequential ? now : before;
    block_tape<float> tape;
    forward<linear_layer, float>(b, x, {.sequences = sequences}, tape);
    std::vector<matrix> inputs{tape.attention_input.raw, tape.context.raw};
    for (std::size_t e = 0; e < b.mlps.size(); ++e) {
        matrix const& read = tape.mlp_input.raw;
        inputs.push_back(is_routed(b, e) ? nn::rows_of_tokens(read, tape.mlps[e].tokens) : read);
        inputs.push_back(tape.mlps[e].hidden.raw);
    }
    return inputs;
}

TEST_P(quantize_tiny, calibrates_with_what_quantized_and_float_layers_make) {
    for (bool const sequential : {true, false}) {
        decoder model = model_;
        auto text = few(3);
        text.true_sequential = sequential;
        text.float_stream = true;
        std::vector<layer_inputs> seen;
        std::vector<layer_place> places;
        layer_quantizer<int_grid<3>> const q;
        auto const reports = quantize_decoder(
            model,
            [&](matrix const& w, layer_inputs const& known, layer_place place) {
                places.push_back(place);
                seen.push_back(known);
                return q(w, known);
            },
            text, test::two_threads());
        std::size_t layer = 0;
        matrix x = model.embed(text.tokens.first(3 * 128), {.sequences = 3});
        matrix x_float = x;
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            block const& before = model_.blocks[i];
            auto const groups = before.groups();
            auto const inputs = inputs_of(model.blocks[i], before, x, 3, sequential);
            auto const floats = inputs_of(before, before, x_float, 3, sequential);
            for (std::size_t g = 0; g < groups.size(); ++g) {
                Eigen::MatrixXd const now = inputs[g].cast<double>();
                Eigen::MatrixXd const h = 2.0 / (3 * 128) * now.transpose() * now;
                Eigen::MatrixXd const c = 2.0 / (3 * 128) * (floats[g].cast<double>() - now).transpose() * now;
                for (layer_place const place : groups[g]) {
                    ASSERT_EQ(reports[layer].name, model.blocks[i].linear(place).name);
                    ASSERT_EQ(reports[layer].place, place);
                    ASSERT_EQ(reports[layer].tokens, 3 * 128);
                    ASSERT_FALSE(reports[layer].few_tokens);
                    ASSERT_EQ(places[layer], place);
                    ASSERT_EQ(seen[layer].hessian().tokens(), 3 * 128);
                    ASSERT_EQ(seen[layer].features(), h.rows());
                    double const size = h.diagonal().maxCoeff();
                    Eigen::MatrixXd const sum = seen[layer].hessian().sum();
                    Eigen::MatrixXd const upper = h.triangularView<Eigen::Upper>();
                    EXPECT_LE((seen[layer].hessian().scale() * sum - upper).cwiseAbs().maxCoeff(), 1e-4 * size);
                    EXPECT_LE((seen[layer].difference() - c).cwiseAbs().maxCoeff(), 1e-4 * size);
                    ++layer;
                }
            }
            x = forward(model.blocks[i], x, {.sequences = 3});
            x_float = forward(before, x_float, {.sequences = 3});
        }
        EXPECT_EQ(layer, reports.size());
    }
}

TEST_P(quantize_tiny, chooses_the_same_codes_on_any_number_of_threads) {
    std::map<std::string, packed_matrix> first;
    for (index_t const count : {1, 2, 3}) {
        decoder model = model_;
        thread_team executor(count);
        layer_quantizer<int_grid<4>> q{.group = 64};
        q.executor = executor;
        quantize_decoder(model, q, few(4), executor);
        for (auto const& [name, packed] : packed_layers(model)) {
            if (count == 1) {
                first.emplace(name, *packed);
            } else {
                EXPECT_TRUE(first.at(name) == *packed) << name;
            }
        }
    }
    EXPECT_FALSE(first.empty());
}

TEST_P(quantize_tiny, keeps_weak_columns_where_it_is_told_to_and_errs_less) {
    auto const run = [&](index_t in_attention, decoder& model) {
        problem_of const p{int_grid<3>{}, per_channel{}, truncated_range{.steps = 20}};
        return quantize_decoder(
            model,
            [&](matrix const& w, layer_inputs const& known, layer_place place) -> quantization {
                owq<> const solver{.columns = place.role <= linear_role::output ? in_attention : 0};
                solution const s = solver.solve(w, known, p, test::two_threads());
                return {pack(s), s.report};
            },
            few(8), test::two_threads());
    };
    decoder none = model_;
    auto const without = run(0, none);
    decoder some = model_;
    auto const with = run(4, some);
    double error = 0;
    double error_without = 0;
    for (std::size_t i = 0; i < with.size(); ++i) {
        bool const attention = with[i].name.find("attn") != std::string::npos;
        EXPECT_EQ(with[i].weak_columns, attention ? 4 : 0) << with[i].name;
        EXPECT_DOUBLE_EQ(with[i].effective_bits, attention ? 3 + 13 * 4.0 / 256 : 3) << with[i].name;
        EXPECT_GT(with[i].bits_per_weight, with[i].effective_bits);
        error += attention ? with[i].error : 0;
        error_without += attention ? without[i].error : 0;
    }
    EXPECT_LT(error, 0.9 * error_without);
    auto const tokens = std::span(text_).subspan(5000, 4 * 128);
    EXPECT_LT(perplexity(some, tokens, 128, test::two_threads()), perplexity(none, tokens, 128, test::two_threads()));
}

TEST_P(quantize_tiny, reports_every_layer_and_errs_less_than_rounding_to_nearest) {
    decoder model = model_;
    auto const solved = quantize_decoder(model, layer_quantizer<int_grid<3>>{}, few(8), test::two_threads());
    decoder rounded_model = model_;
    auto const rounded =
        quantize_decoder(rounded_model, layer_quantizer<int_grid<3>>{.to_nearest = true}, few(8), test::two_threads());
    ASSERT_EQ(solved.size(), packed_layers(model).size());
    for (std::size_t i = 0; i < solved.size(); ++i) {
        EXPECT_EQ(solved[i].name, rounded[i].name);
        EXPECT_GT(solved[i].error, 0);
        EXPECT_LT(solved[i].error, rounded[i].error) << solved[i].name;
        EXPECT_EQ(solved[i].solve.fallback, "");
        EXPECT_GT(solved[i].bits_per_weight, 3);
        EXPECT_LT(solved[i].bits_per_weight, 3.2);
    }
}

TEST_P(quantize_tiny, tells_a_stopwatch_what_its_time_goes_to) {
    for (bool const sequential : {true, false}) {
        decoder model = model_;
        auto text = few(1);
        text.true_sequential = sequential;
        stopwatch watch;
        quantize_decoder(model, layer_quantizer<int_grid<4>>{}, text, test::two_threads().timed_by(watch));
        work_times const times = watch.lap();
        for (std::size_t i = 0; i < work_names.size(); ++i) {
            bool const absent = i == static_cast<std::size_t>(work_kind::rounding); // of activations
            EXPECT_EQ(times.seconds[i] == 0, absent) << work_names[i];
        }
        perplexity(model, std::span(text_).first(128), 128, test::two_threads().timed_by(watch));
        work_times const packed = watch.lap();
        EXPECT_GT(packed[work_kind::products], 0);
        EXPECT_GT(packed[work_kind::attention], 0);
        EXPECT_EQ(packed[work_kind::hessians], 0);
    }
}

TEST_P(quantize_tiny, takes_any_grid) {
    decoder four = model_;
    decoder three = model_;
    double const exact = perplexity(model_, std::span(text_).last(4096), 128, test::two_threads());
    quantize_decoder(four, layer_quantizer<e2m1, absmax_range>{.group = 32}, few(8), test::two_threads());
    quantize_decoder(three, layer_quantizer<ternary, absmax_range>{.group = 8}, few(8), test::two_threads());
    EXPECT_LT(perplexity(four, std::span(text_).last(4096), 128, test::two_threads()), 1.2 * exact);
    EXPECT_LT(perplexity(three, std::span(text_).last(4096), 128, test::two_threads()), 10 * exact);
}

TEST_P(quantize_tiny, names_the_layer_that_cannot_be_quantized) {
    auto& layer = model_.blocks[1].mlps.front().up;
    std::get<matrix>(layer.weight)(3, 5) = std::numeric_limits<float>::quiet_NaN();
    try {
        quantize_decoder(model_, layer_quantizer<int_grid<4>>{}, few(1), test::two_threads());
        FAIL();
    } catch (error const& e) {
        EXPECT_NE(std::string(e.what()).find(layer.name), std::string::npos) << e.what();
        EXPECT_NE(std::string(e.what()).find("row 3, column 5"), std::string::npos) << e.what();
    }
}

TEST_P(quantize_tiny, refuses_a_quantized_model) {
    layer_quantizer<int_grid<4>> const q{.to_nearest = true};
    quantize_decoder(model_, q, few(1), test::two_threads());
    try {
        quantize_decoder(model_, q, few(1), test::two_threads());
        FAIL();
    } catch (error const& e) {
        EXPECT_NE(std::string(e.what()).find("is quantized already"), std::string::npos) << e.what();
    }
}

TEST_P(quantize_tiny, stops_when_told) {
    int calls = 0;
    EXPECT_THROW(quantize_decoder(model_, layer_quantizer<int_grid<4>>{}, few(2), {},
                                  [&](std::string_view, double) { return ++calls < 6; }),
                 cancelled);
    EXPECT_EQ(calls, 6);
}

TEST_P(quantize_tiny, needs_a_window_of_text) {
    EXPECT_THROW(quantize_decoder(model_, layer_quantizer<int_grid<4>>{},
                                  {.tokens = std::span(text_).first(100), .window = 128}),
                 error);
}

// The figures of GPTQ's published code on these models, as docs/results.md explains; the tolerance covers its noise.
TEST(oracle, rounding_to_nearest) {
    auto const text = test::calibration_text();
    auto const evaluation = test::evaluation_text();
    decoder llama = load_decoder(test::model_directory("tiny-llama"));
    quantize_decoder(llama, layer_quantizer<int_grid<4>>{.group = 128, .to_nearest = true},
                     {.tokens = text, .windows = 1}, test::two_threads());
    EXPECT_NEAR(perplexity(llama, evaluation, 512, test::two_threads()), 3.14489, 2e-3 * 3.14489);
}

TEST(oracle, gptq) {
    auto const text = test::calibration_text();
    auto const evaluation = test::evaluation_text();
    calibration const all{.tokens = text};
    decoder opt = load_decoder(test::model_directory("tiny-opt"));
    quantize_decoder(opt, layer_quantizer<int_grid<3>>{}, all, test::two_threads());
    EXPECT_LT(perplexity(opt, evaluation, 512, test::two_threads()), 1.01 * 3.60036);
}

TEST(oracle, gptq_on_stories15M_loses_much_less_than_rounding_to_nearest) {
    std::filesystem::path const directory = DETENT_SHARED_DIR "/models/stories15M";
    if (!std::filesystem::exists(directory)) {
        GTEST_SKIP() << "SKIPPED: there is no stories15M model beside this repository";
    }
    auto const text = io::read_tokens(directory / "tinystories_calib.tokens.u16");
    auto const tokens = io::read_tokens(directory / "tinystories_eval.tokens.u16");
    std::span const evaluation = std::span(tokens).first(16 * 256);
    auto const excess = [&](quantize_layer q) { // of log perplexity over float
        decoder model = load_decoder(directory);
        double const exact = perplexity(model, evaluation, 256, test::two_threads());
        quantize_decoder(model, q, {.tokens = text, .window = 256, .windows = 32}, test::two_threads());
        return std::log(perplexity(model, evaluation, 256, test::two_threads()) / exact);
    };
    using q = layer_quantizer<int_grid<4>>;
    EXPECT_LT(excess(q{.group = 64}), 0.75 * excess(q{.group = 64, .to_nearest = true}));
    EXPECT_LT(excess(layer_quantizer<int_grid<5>>{.group = 64}), std::log(1.03));
}

} // namespace
} // namespace detent
