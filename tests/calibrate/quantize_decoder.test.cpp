// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
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
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/model/save.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/truncated.hpp"
#include "detent/solver/owq.hpp"
#include "model/random_decoder.hpp"

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

/// What a layer reads, given the quantized model (`now`) and the block with float weights (`before`).
std::vector<matrix> inputs_of(block const& now, block const& before, matrix x, index_t sequences, bool sequential) {
    nn::token_rows const rows{.sequences = sequences};
    block const& b = sequential ? now : before;
    matrix const input = b.attention_input(x);
    matrix const context = b.attention_context(input, rows);
    x += b.output.forward(context);
    matrix const mlp = b.mlp_input(x);
    return {input, context, mlp, b.mlp_hidden(mlp)};
}

TEST_P(quantize_tiny, calibrates_with_what_quantized_and_float_layers_make) {
    for (bool const sequential : {true, false}) {
        decoder model = model_;
        auto text = few(3);
        text.true_sequential = sequential;
        text.float_stream = true;
        std::vector<layer_inputs> seen;
        std::vector<linear_role> roles;
        layer_quantizer<int_grid<3>> const q;
        auto const reports = quantize_decoder(
            model, [&](matrix const& w, layer_inputs const& known, linear_role role) {
                roles.push_back(role);
                seen.push_back(known);
                return q(w, known);
            },
            text,
            test::two_threads());
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
                for (linear_role const role : groups[g]) {
                    ASSERT_EQ(reports[layer].name, model.blocks[i].linear(role).name);
                    ASSERT_EQ(roles[layer], role);
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
            x = model.blocks[i].forward(std::move(x), {.sequences = 3});
            x_float = before.forward(std::move(x_float), {.sequences = 3});
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
            model, [&](matrix const& w, layer_inputs const& known, linear_role role) -> quantization {
                owq<> const solver{.columns = role <= linear_role::output ? in_attention : 0};
                solution const s = solver.solve(w, known, p, test::two_threads());
                return {pack(s), s.report};
            },
            few(8),
            test::two_threads());
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
    auto& layer = model_.blocks[1].up;
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

/// Small models with random weights: many layers' worth of checks in no time.
class quantize_small : public testing::TestWithParam<std::string> {
protected:
    static constexpr index_t window = 10;
    static constexpr index_t windows = 8;

    /// Takes what all layers are shown, in order.
    struct watcher {
        std::vector<layer_inputs> seen;
        std::optional<activation_quantizer> input = {};

        quantization operator()(matrix const& w, layer_inputs const& known, linear_role) {
            seen.push_back(known);
            quantization q = layer_quantizer<int_grid<2>>{.to_nearest = true}(w, known); // much is lost
            q.input = input;
            return q;
        }
    };

    calibration text() const { return {.tokens = tokens_, .window = window, .windows = windows}; }

    /// What the layers of all blocks of a model read, in the order of `block::groups`, and what the last block makes.
    struct pass {
        std::vector<matrix> inputs;
        matrix x;
    };
    pass run(decoder const& model) const {
        nn::token_rows const rows{.sequences = windows};
        pass p{.inputs = {}, .x = model.embed(tokens_, rows)};
        for (block const& b : model.blocks) {
            auto const groups = inputs_of(b, b, p.x, windows, true);
            p.inputs.insert(p.inputs.end(), groups.begin(), groups.end());
            p.x = b.forward(std::move(p.x), rows);
        }
        return p;
    }

    /// Calls `f(what layers were shown, what they read)` for every layer of the blocks.
    template <class F> void for_layers(watcher const& w, pass const& p, F const& f) const {
        std::size_t layer = 0;
        std::size_t input = 0;
        for (block const& b : model_.blocks) {
            for (auto const& group : b.groups()) {
                for (std::size_t i = 0; i < group.size(); ++i) {
                    ASSERT_LT(layer, w.seen.size());
                    f(w.seen[layer++], p.inputs[input]);
                }
                ++input;
            }
        }
        EXPECT_EQ(layer + (text_has_head_ ? 1 : 0), w.seen.size());
    }

    static void expect_hessian(layer_inputs const& seen, matrix const& inputs) {
        Eigen::MatrixXd const x = inputs.cast<double>();
        Eigen::MatrixXd const h = 2.0 / static_cast<double>(x.rows()) * x.transpose() * x;
        Eigen::MatrixXd const upper = h.triangularView<Eigen::Upper>();
        Eigen::MatrixXd const sum = seen.hessian().sum();
        EXPECT_EQ(seen.hessian().tokens(), x.rows());
        EXPECT_LE((seen.hessian().scale() * sum - upper).cwiseAbs().maxCoeff(), 1e-4 * h.diagonal().maxCoeff());
    }
    static void expect_near(matrix const& a, matrix const& b) {
        ASSERT_EQ(shape_of(a), shape_of(b));
        EXPECT_LE((a - b).cwiseAbs().maxCoeff(), 1e-4F * b.cwiseAbs().maxCoeff());
    }

    bool text_has_head_ = false;
    std::vector<nn::token_id> const tokens_ = test::some_tokens(window * windows);
    decoder model_ = test::random_decoder(GetParam() == "llama" ? test::llama_json() : test::opt_json());
};
INSTANTIATE_TEST_SUITE_P(, quantize_small, testing::Values("llama", "opt"),
                         [](auto const& test) { return test.param; });

TEST_P(quantize_small, shows_the_inputs_of_the_float_model_whatever_was_quantized_before) {
    pass const floats = run(model_);
    for (bool const sequential : {true, false}) {
        decoder model = model_;
        auto t = text();
        t.float_inputs = true;
        t.true_sequential = sequential;
        watcher w;
        quantize_decoder(model, w, t);
        for_layers(w, floats, [&](layer_inputs const& seen, matrix const& inputs) {
            expect_hessian(seen, inputs);
            EXPECT_FALSE(seen.has_difference());
            EXPECT_EQ(seen.kept().rows(), 0);
        });
    }
    // Which is not what they read otherwise.
    decoder model = model_;
    watcher w;
    quantize_decoder(model, w, text());
    pass const quantized = run(model);
    for_layers(w, quantized, [&](layer_inputs const& seen, matrix const& inputs) { expect_hessian(seen, inputs); });
    EXPECT_GT((quantized.inputs.back() - floats.inputs.back()).cwiseAbs().maxCoeff(),
              0.05F * floats.inputs.back().cwiseAbs().maxCoeff());
}

TEST_P(quantize_small, keeps_all_inputs_where_it_is_told_to) {
    for (bool const floats : {true, false}) {
        decoder model = model_;
        auto t = text();
        t.float_inputs = floats;
        t.keep_inputs = true;
        watcher w;
        quantize_decoder(model, w, t);
        for_layers(w, run(floats ? model_ : model), [&](layer_inputs const& seen, matrix const& inputs) {
            expect_near(seen.kept(), inputs);
            expect_hessian(seen, inputs);
        });
    }
}

TEST_P(quantize_small, rounds_the_inputs_of_layers) {
    activation_quantizer const to_int4(any_grid(int_grid<4>{}));
    decoder model = model_;
    auto t = text();
    t.activations = to_int4;
    watcher w{.seen = {}, .input = to_int4};
    quantize_decoder(model, w, t);
    pass const quantized = run(model); // its layers round what they read
    for_layers(w, quantized, [&](layer_inputs const& seen, matrix const& inputs) {
        matrix const rounded = to_int4.round(inputs);
        expect_hessian(seen, rounded);
        ASSERT_TRUE(seen.has_difference()); // from what was not rounded
        Eigen::MatrixXd const c =
            2.0 / (window * windows) * (inputs - rounded).cast<double>().transpose() * rounded.cast<double>();
        EXPECT_LE((seen.difference() - c).cwiseAbs().maxCoeff(), 1e-3 * c.cwiseAbs().maxCoeff());
    });
    for (block const& b : model.blocks) {
        for (auto const& group : b.groups()) {
            for (linear_role const role : group) {
                ASSERT_TRUE(b.linear(role).input == to_int4);
            }
        }
    }
    // The layers of the forward pass really do: weights and inputs decoded by hand give the same.
    auto const& layer = model.blocks[1].up;
    matrix const x = quantized.inputs[6];
    matrix expected = to_int4.round(x) * dequantize(std::get<packed_matrix>(layer.weight)).transpose();
    if (layer.bias.size() > 0) {
        expected.rowwise() += layer.bias.transpose();
    }
    expect_near(layer.forward(x), expected);
    EXPECT_GT((layer.forward(x) - layer.forward(to_int4.round(x) + 0.3F * x)).cwiseAbs().maxCoeff(), 0.01F);
}

TEST_P(quantize_small, prepares_every_block_before_it_is_quantized) {
    activation_quantizer const to_int4(any_grid(int_grid<4>{}));
    decoder model = model_;
    auto t = text();
    t.float_stream = true;
    std::vector<matrix> before, floats; // hidden states before each block
    t.prepare = [&](block& b, matrix_view x, matrix_view beside, nn::token_rows rows) {
        EXPECT_EQ(rows.sequences, windows);
        EXPECT_TRUE(std::holds_alternative<matrix>(b.up.weight));
        before.emplace_back(x);
        floats.emplace_back(beside);
        b.head_input = to_int4; // of the quantized model only
    };
    watcher w;
    quantize_decoder(model, w, t);
    ASSERT_EQ(before.size(), model.blocks.size());
    nn::token_rows const rows{.sequences = windows};
    matrix x = model.embed(tokens_, rows), beside = x;
    for (std::size_t i = 0; i < before.size(); ++i) {
        expect_near(before[i], x);
        expect_near(floats[i], beside);
        EXPECT_TRUE(model.blocks[i].head_input == to_int4);
        x = model.blocks[i].forward(std::move(x), rows);
        beside = model_.blocks[i].forward(std::move(beside), rows);
    }
    EXPECT_GT((x - beside).cwiseAbs().maxCoeff(), 0.05F * beside.cwiseAbs().maxCoeff());

    // Attention really rounds each head.
    block const& b = model.blocks[0];
    block plain = b;
    plain.head_input.reset();
    matrix const input = plain.attention_input(before[0]);
    auto const rounded = b.project(input, rows), whole = plain.project(input, rows);
    index_t const hd = b.heads.head_dim;
    EXPECT_EQ(rounded.k.middleCols(hd, hd), to_int4.round(whole.k.middleCols(hd, hd)));
    EXPECT_EQ(rounded.q.leftCols(hd), to_int4.round(whole.q.leftCols(hd)));
    EXPECT_NE(rounded.v, whole.v);
}

TEST_P(quantize_small, quantizes_the_head_when_asked) {
    text_has_head_ = true;
    bool const tied = GetParam() == "opt";
    ASSERT_EQ(model_.lm_head.has_value(), !tied);
    activation_quantizer const to_int8(any_grid(int_grid<8>{}));
    for (bool const rounds : {false, true}) {
        decoder model = model_;
        auto t = text();
        t.head = true;
        watcher w;
        if (rounds) {
            t.activations = to_int8;
            w.input = to_int8;
        }
        std::vector<double> fractions;
        auto const reports = quantize_decoder(model, w, t, {}, [&](std::string_view, double fraction) {
            fractions.push_back(fraction);
            return true;
        });
        EXPECT_TRUE(std::ranges::is_sorted(fractions)); // progress never goes back
        EXPECT_EQ(fractions.back(), 1);
        EXPECT_EQ(reports.back().name, "lm_head");
        ASSERT_TRUE(model.lm_head);
        ASSERT_TRUE(std::holds_alternative<packed_matrix>(model.lm_head->weight));
        EXPECT_EQ(model.lm_head->input.has_value(), rounds);
        EXPECT_TRUE(std::holds_alternative<matrix>(model.embeddings.weight));
        EXPECT_EQ(std::get<matrix>(model.embeddings.weight), std::get<matrix>(model_.embeddings.weight));

        pass const p = run(model);
        matrix const last = model_.final_norm.forward(p.x);
        matrix const read = rounds ? to_int8.round(last) : last;
        expect_hessian(w.seen.back(), read);
        for_layers(w, p, [&](layer_inputs const& seen, matrix const& inputs) {
            expect_hessian(seen, rounds ? to_int8.round(inputs) : inputs);
        });
        // Logits by hand: the head rounded to nearest, its input too.
        linear_layer const& float_head = tied ? model_.embeddings : *model_.lm_head;
        matrix const head = dequantize(
            layer_quantizer<int_grid<2>>{.to_nearest = true}(std::get<matrix>(float_head.weight), {}).weights);
        expect_near(model.forward(tokens_, windows), read * head.transpose());
    }
    decoder model = model_;
    text_has_head_ = false;
    watcher w;
    auto const reports = quantize_decoder(model, w, text());
    EXPECT_NE(reports.back().name, "lm_head");
    EXPECT_EQ(model.lm_head.has_value(), !tied);
    for_layers(w, run(model), [](layer_inputs const&, matrix const&) {});
}

TEST_P(quantize_small, shows_the_head_the_inputs_of_the_float_model) {
    decoder model = model_;
    auto t = text();
    t.head = true;
    t.float_inputs = true;
    t.keep_inputs = true;
    watcher w;
    quantize_decoder(model, w, t);
    matrix const last = model_.final_norm.forward(run(model_).x);
    expect_near(w.seen.back().kept(), last);
    expect_hessian(w.seen.back(), last);
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
