// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "calibrate/tiny_models.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/tune.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "detent/transform/smooth.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"
#include "model/reference_gradient.hpp"

namespace detent {
namespace {

/// Quantizes all linear layers of a model with weak columns, without looking at any text.
void quantize_with_weak_columns(decoder& model, index_t columns, index_t group, float_format format) {
    problem_of const p{int_grid<3>{}, per_tile{1, group}, minmax_range{}};
    for (block& b : model.blocks) {
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                matrix const w = std::get<matrix>(b.linear(place).weight);
                std::srand(static_cast<unsigned>(w.cols()));
                hessian const h = hessian::of(matrix::Random(2 * w.cols(), w.cols()));
                owq<> const solver{.columns = columns, .format = format};
                b.linear(place).weight = pack(solver.solve(w, h, p));
            }
        }
    }
}

packed_matrix const& packed(linear_layer const& layer) { return std::get<packed_matrix>(layer.weight); }

class tune_small : public testing::TestWithParam<nlohmann::json> {
protected:
    std::vector<nn::token_id> tokens_ = test::some_tokens(4 * 9 + 5);
};
INSTANTIATE_TEST_SUITE_P(, tune_small, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& test) { return test.param["model_type"].template get<std::string>(); });

TEST_P(tune_small, moves_weak_columns_along_the_gradient_of_the_scalar_reference) {
    for (index_t const group : {0, 5}) { // with groups the columns are stored in another order
        test::random_weights source;
        auto const configuration = parse_configuration(GetParam(), "config.json");
        decoder model = assemble_decoder(configuration, "", source);
        quantize_with_weak_columns(model, 3, group, float_format::f32);
        decoder const before = model;
        for (block const& b : model.blocks) {
            for (auto const& places : b.groups()) {
                for (layer_place const place : places) {
                    source.tensors[b.linear(place).name + ".weight"] = dequantize(packed(b.linear(place)));
                }
            }
        }
        std::vector<nn::token_id> const text(tokens_.begin(), tokens_.begin() + 4 * 9);
        test::reference_loss reference(configuration, source.tensors, text, 4);

        // With an eps this large a step of AdamW is one of gradient descent.
        tuning const how{.tokens = tokens_,
                         .window = 9,
                         .batch = 4,
                         .at_once = 3,
                         .optimizer = {.learning_rate = 1e7, .eps = 1e8},
                         .largest_norm = 1e9};
        decoder_tuner tuner(model, how);
        EXPECT_EQ(tuner.steps(), 1);
        EXPECT_NEAR(tuner.step().loss, reference() / 32, 1e-5 * reference() / 32); // mean over 4 * 8 tokens
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            for (auto const& places : model.blocks[i].groups()) {
                for (layer_place const place : places) {
                    auto const& now = packed(model.blocks[i].linear(place));
                    auto const& was = packed(before.blocks[i].linear(place));
                    EXPECT_EQ(now.codes, was.codes);
                    EXPECT_EQ(now.scales, was.scales);
                    matrix const moved = dequantize(was) - dequantize(now);
                    float const size = moved.cwiseAbs().maxCoeff();
                    EXPECT_GT(size, 0);
                    for (index_t k = 0; k < 3; ++k) {
                        index_t const column = now.weak.columns()[static_cast<std::size_t>(k)];
                        index_t const input =
                            now.map.empty() ? column : (*now.map.order())[static_cast<std::size_t>(column)];
                        for (index_t row = k; row < moved.rows(); row += 3) {
                            std::string const name = before.blocks[i].linear(place).name + ".weight";
                            ASSERT_NEAR(moved(row, input), 0.1 / 32 * reference.derivative(name, row, input),
                                        1e-4 * size + 1e-7)
                                << name;
                        }
                    }
                }
            }
        }
    }
}

TEST_P(tune_small, moves_weak_columns_that_meet_rotated_inputs) {
    test::random_weights source;
    auto const configuration = parse_configuration(GetParam(), "config.json");
    decoder model = assemble_decoder(configuration, "", source);
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    for (block& b : model.blocks) {
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                linear_layer& layer = b.linear(place);
                matrix const w = std::get<matrix>(layer.weight);
                std::srand(static_cast<unsigned>(w.cols()));
                layer_inputs const known = layer_inputs::of(matrix::Random(2 * w.cols(), w.cols()));
                transformed<smooth<>, transformed<hadamard<4>, owq<>>> const solver{
                    .inner = {.inner = {.columns = 3, .format = float_format::f32}}};
                layer.weight = pack(solver.solve(w, known, p));
                source.tensors[layer.name + ".weight"] = dequantize(packed(layer));
            }
        }
    }
    decoder const before = model;
    std::vector<nn::token_id> const text(tokens_.begin(), tokens_.begin() + 4 * 9);
    test::reference_loss reference(configuration, source.tensors, text, 4);
    decoder_tuner tuner(model, {.tokens = tokens_,
                                .window = 9,
                                .batch = 4,
                                .optimizer = {.learning_rate = 1e7, .eps = 1e8}, // a step of gradient descent
                                .largest_norm = 1e9});
    tuner.step();
    for (linear_role const role : {linear_role::query, linear_role::output, linear_role::up, linear_role::down}) {
        linear_layer const& layer = before.blocks[0].linear({role});
        packed_matrix const& was = packed(layer);
        packed_matrix const& now = packed(model.blocks[0].linear({role}));
        // The derivative by a weight that meets a mapped input is that by all weights of its row, times M^T.
        for (index_t const row : {0, 4}) {
            matrix by_inputs(1, was.shape().cols); // (1, in)
            for (index_t col = 0; col < by_inputs.cols(); ++col) {
                by_inputs(0, col) = static_cast<float>(reference.derivative(layer.name + ".weight", row, col));
            }
            matrix const by_mapped = was.map.apply(by_inputs);
            for (index_t k = 0; k < 3; ++k) {
                index_t const column = was.weak.columns()[static_cast<std::size_t>(k)];
                float const expected = 0.1F / 32 * by_mapped(0, column);
                EXPECT_NEAR(was.weak.at(k, row) - now.weak.at(k, row), expected,
                            1e-3F * 0.1F / 32 * by_mapped.cwiseAbs().maxCoeff() + 1e-6F)
                    << layer.name << ' ' << row;
            }
        }
    }
}

TEST_P(tune_small, trains_all_weights_of_float_layers) {
    test::random_weights source;
    auto const configuration = parse_configuration(GetParam(), "config.json");
    decoder model = assemble_decoder(configuration, "", source);
    decoder const before = model;
    std::vector<nn::token_id> const text(tokens_.begin(), tokens_.begin() + 4 * 9);
    test::reference_loss reference(configuration, source.tensors, text, 4);
    decoder_tuner tuner(
        model, {.tokens = tokens_, .window = 9, .optimizer = {.learning_rate = 1e7, .eps = 1e8}, .largest_norm = 1e9});
    tuner.step();
    linear_layer const& down = before.blocks[1].mlps[0].down;
    matrix const moved = std::get<matrix>(down.weight) - std::get<matrix>(model.blocks[1].mlps[0].down.weight);
    for (index_t row = 0; row < moved.rows(); row += 5) {
        ASSERT_NEAR(moved(row, 7), 0.1 / 32 * reference.derivative(down.name + ".weight", row, 7),
                    1e-4 * static_cast<double>(moved.cwiseAbs().maxCoeff()) + 1e-7);
    }
    index_t count = 0;
    for (auto const& [name, w] : source.tensors) {
        bool const trained = name.find("layers.") != name.npos && name.ends_with(".weight") && w.cols() > 1;
        count += trained ? w.size() : 0;
    }
    EXPECT_EQ(tuner.parameters(), count);
}

/// All that is trained, after these steps.
std::vector<weak_columns> weak_after(decoder model, tuning const& how, executor_ref executor = {}) {
    decoder_tuner tuner(model, how, executor);
    tuner.run();
    std::vector<weak_columns> found;
    for (block const& b : model.blocks) {
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                found.push_back(packed(b.linear(place)).weak);
            }
        }
    }
    return found;
}

TEST_P(tune_small, gives_the_same_bits_for_any_number_of_threads_and_when_resumed) {
    decoder model = test::random_decoder(GetParam());
    quantize_with_weak_columns(model, 2, 0, float_format::f16);
    tuning const how{.tokens = tokens_, .window = 9, .batch = 2, .epochs = 3, .optimizer = {.learning_rate = 0.01}};
    auto const expected = weak_after(model, how);
    thread_team three(3);
    EXPECT_EQ(weak_after(model, how, three), expected);

    temporary_directory const directory;
    auto const file = directory / "tuning.safetensors";
    decoder first = model;
    decoder_tuner started(first, how);
    EXPECT_EQ(started.steps(), 6);
    for (int i = 0; i < 3; ++i) {
        started.step();
    }
    started.save(file);
    decoder second = model;
    decoder_tuner resumed(second, how);
    resumed.resume(file);
    EXPECT_EQ(resumed.steps_done(), 3);
    resumed.run();
    std::size_t i = 0;
    for (block const& b : second.blocks) {
        for (auto const& places : b.groups()) {
            for (layer_place const place : places) {
                EXPECT_EQ(packed(b.linear(place)).weak, expected[i++]);
            }
        }
    }
}

TEST(tune, lowers_the_loss_of_every_form_of_decoder) {
    auto const tokens = test::some_tokens(4 * 9);
    for (auto const& form : test::decoder_forms()) {
        SCOPED_TRACE(form.name);
        decoder model = test::random_decoder(form.configuration);
        quantize_with_weak_columns(model, 3, 0, float_format::f32);
        decoder const before = model;
        decoder_tuner tuner(
            model, {.tokens = tokens, .window = 9, .batch = 4, .epochs = 8, .optimizer = {.learning_rate = 1e-2}});
        auto const steps = tuner.run();
        EXPECT_LT(steps.back().loss, 0.95 * steps.front().loss);
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            for (auto const& places : model.blocks[i].groups()) {
                for (layer_place const place : places) { // of all experts, too
                    EXPECT_NE(packed(model.blocks[i].linear(place)).weak, packed(before.blocks[i].linear(place)).weak);
                }
            }
        }
    }
}

TEST_P(tune_small, finishes_in_the_format_it_found) {
    for (auto const format : {float_format::f16, float_format::bf16, float_format::f32}) {
        decoder model = test::random_decoder(GetParam());
        quantize_with_weak_columns(model, 2, 0, format);
        tuning const how{.tokens = tokens_, .window = 9};
        decoder_tuner tuner(model, how);
        tuner.run();
        weak_columns const tuned = packed(model.blocks[0].mlps[0].up).weak;
        EXPECT_EQ(tuned.format(), float_format::f32);
        tuner.finish();
        EXPECT_EQ(packed(model.blocks[0].mlps[0].up).weak, tuned.stored_as(format));
        EXPECT_THROW(tuner.step(), error);
        temporary_directory const directory;
        EXPECT_THROW(tuner.save(directory / "late"), error);
        EXPECT_THROW(tuner.resume(directory / "late"), error);
    }
}

TEST_P(tune_small, complains_of_what_it_cannot_do) {
    decoder model = test::random_decoder(GetParam());
    EXPECT_EQ(failure_message([&] { decoder_tuner(model, {.tokens = tokens_, .window = 100}); }),
              "tuning text: has 41 tokens, which is no window of 100");
    decoder plain = model;
    quantize_with_weak_columns(plain, 0, 0, float_format::f16);
    EXPECT_EQ(failure_message([&] { decoder_tuner(plain, {.tokens = tokens_, .window = 9}); }),
              "model: has nothing to tune: all its linear layers are quantized, without weak columns");

    quantize_with_weak_columns(model, 2, 0, float_format::f16);
    tuning const how{.tokens = tokens_, .window = 9};
    decoder_tuner tuner(model, how);
    EXPECT_THROW(tuner.run([](std::string_view, double) { return false; }), cancelled);
    EXPECT_EQ(tuner.steps_done(), 0);
    weak_columns const before = packed(model.blocks[1].mlps[0].down).weak;
    auto& broken = std::get<packed_matrix>(model.blocks[0].mlps[0].up.weight).weak;
    broken.set(0, 0, std::numeric_limits<float>::infinity());
    EXPECT_TRUE(contains(failure_message([&] { tuner.step(); }), "tuning step 1: the loss is no longer finite"));
    EXPECT_EQ(packed(model.blocks[1].mlps[0].down).weak, before);
}

TEST_P(tune_small, refuses_to_resume_from_another_tuning) {
    decoder model = test::random_decoder(GetParam());
    quantize_with_weak_columns(model, 2, 0, float_format::f16);
    decoder other = test::random_decoder(GetParam());
    quantize_with_weak_columns(other, 3, 0, float_format::f16);
    tuning const how{.tokens = tokens_, .window = 9, .epochs = 2};
    temporary_directory const directory;
    auto const file = directory / "tuning.safetensors";
    decoder_tuner tuner(model, how);
    tuner.run();
    tuner.save(file);
    decoder_tuner another(other, how);
    EXPECT_TRUE(contains(failure_message([&] { another.resume(file); }), "must be F32 of"));
    EXPECT_EQ(another.steps_done(), 0);
    // A square that is negative would become NaN one step later.
    io::safetensors_file const saved(file);
    io::safetensors_writer changed;
    for (auto const& name : saved.names()) {
        std::vector<std::uint8_t> bytes(saved.at(name).bytes.begin(), saved.at(name).bytes.end());
        if (name.ends_with("up_proj.second") || name.ends_with("fc1.second")) {
            bytes[3] |= 0x80U;
        }
        changed.add(name, saved.at(name).type, saved.at(name).shape, std::move(bytes));
    }
    changed.save(directory / "changed");
    EXPECT_TRUE(contains(failure_message([&] { tuner.resume(directory / "changed"); }), "a negative square"));

    decoder same = test::random_decoder(GetParam());
    quantize_with_weak_columns(same, 2, 0, float_format::f16);
    tuning const shorter{.tokens = tokens_, .window = 9, .epochs = 1};
    decoder_tuner one_epoch(same, shorter);
    EXPECT_TRUE(contains(failure_message([&] { one_epoch.resume(file); }), "is no number of steps of this tuning"));
}

TEST(tune, adapts_a_real_model_to_another_text) {
    decoder model = load_decoder(test::model_directory("tiny-llama"));
    quantize_with_weak_columns(model, 4, 0, float_format::f16);
    // A text it has never seen the like of: the novels backwards.
    auto text = test::calibration_text();
    std::ranges::reverse(text);
    auto const loss_on = [&](std::size_t first) {
        return perplexity(model, std::span(text).subspan(first, 4 * 128), 128, test::two_threads());
    };
    double const before = loss_on(100000);
    tuning const how{.tokens = std::span(text).first(24 * 128),
                     .window = 128,
                     .batch = 4,
                     .at_once = 4,
                     .optimizer = {.learning_rate = 1e-2}};
    decoder_tuner tuner(model, how, test::two_threads());
    auto const steps = tuner.run();
    tuner.finish();
    EXPECT_EQ(steps.size(), 6U);
    EXPECT_LT(steps.back().loss, steps.front().loss);
    EXPECT_LT(loss_on(100000), 0.8 * before);
}

} // namespace
} // namespace detent
