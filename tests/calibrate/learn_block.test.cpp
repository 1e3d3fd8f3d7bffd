// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/calibrate/learn_block.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/sites.hpp"
#include "model/random_decoder.hpp"
#include "nn/random_matrix.hpp"

namespace detent {
namespace {

constexpr index_t sequences = 3;
constexpr index_t length = 24;

struct setting {
    char const* name;
    nlohmann::json model;
    learning_options how;
    fake_quantizer<float> weights;
    std::optional<any_grid> activations;
};

class learning_of : public testing::TestWithParam<setting> {};
INSTANTIATE_TEST_SUITE_P(, learning_of,
                         testing::Values(setting{"llama_lwc",
                                                 test::llama_json(),
                                                 {.clip = true, .epochs = 40},
                                                 fake_quantizer<float>(any_grid(int_grid<2>{}), 5, float_format::f16),
                                                 {}},
                                         setting{
                                             "llama_lwc_let_int6",
                                             test::llama_json(),
                                             {.clip = true, .transform = true, .epochs = 40, .transform_rate = 1e-3},
                                             fake_quantizer<float>(any_grid(int_grid<4>{}), 0, float_format::f16),
                                             any_grid(int_grid<6>{})},
                                         setting{"opt_let_fp4",
                                                 test::opt_json(),
                                                 {.transform = true, .auxiliary = true, .epochs = 40},
                                                 fake_quantizer<float>(any_grid(fp_grid<2, 1>{}), 0, float_format::f16),
                                                 any_grid(fp_grid<2, 1>{})},
                                         setting{"opt_lwc_let_int6",
                                                 test::opt_json(),
                                                 {.clip = true, .transform = true, .probability_bits = 6, .epochs = 40},
                                                 fake_quantizer<float>(any_grid(int_grid<3>{}), 0, float_format::f16),
                                                 any_grid(int_grid<6>{})}),
                         [](auto const& test) { return test.param.name; });

matrix hidden_states(unsigned seed) { return test::random_matrix(sequences * length, 12, seed); }

double distance(matrix const& a, matrix const& b) { return (a - b).cast<double>().norm(); }

TEST_P(learning_of, brings_the_block_nearer_to_the_float_one_and_leaves_what_it_computes) {
    auto const& s = GetParam();
    block const floats = test::random_decoder(s.model).blocks[0];
    matrix const x = hidden_states(1), beside = x + 0.02F * hidden_states(2);
    nn::token_rows const rows{.sequences = sequences};
    block b = floats;
    block_learner learner(s.how, s.weights, s.activations);
    learner(b, x, beside, rows);

    auto const& losses = learner.losses().front();
    ASSERT_EQ(std::ssize(losses), s.how.epochs);
    EXPECT_LT(losses.back(), 0.97 * losses.front());

    EXPECT_EQ(b.head_input.has_value(), s.activations.has_value());
    block unrounded = b;
    unrounded.head_input.reset();
    EXPECT_EQ(std::exchange(unrounded.heads.probability_bits, 0), s.how.probability_bits);
    matrix const expected = forward(floats, x, rows);
    EXPECT_LE(distance(forward(unrounded, x, rows), expected), 1e-5 * static_cast<double>(expected.norm()));
    if (s.how.transform) {
        EXPECT_GT(distance(std::get<matrix>(b.mlps[0].up.weight), std::get<matrix>(floats.mlps[0].up.weight)), 0.1);
    }
}

TEST_P(learning_of, what_is_deployed_is_what_was_learned) {
    auto const& s = GetParam();
    block const floats = test::random_decoder(s.model).blocks[0];
    matrix const x = hidden_states(1);
    nn::token_rows const rows{.sequences = sequences};
    block b = floats;
    block_learner learner(s.how, s.weights, s.activations);
    learner(b, x, x, rows);

    // The same by hand.
    auto original = dense<float>(floats);
    original.heads.probability_bits = s.how.probability_bits;
    block_rounding<float> rounding;
    block_parameters<float> first;
    if (s.activations) {
        rounding = {fake_quantizer<float>(*s.activations, 0), fake_quantizer<float>(*s.activations, b.heads.head_dim)};
    }
    if (s.how.transform) {
        first.transform = first_transform(original, x, rows, s.how, s.activations.has_value());
    }
    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            extents const shape = original.linear(place).shape();
            if (s.how.clip) {
                first.clips[place] = learned_clip<float>::of(shape.rows, s.weights.tiles_of(shape.cols));
            }
        }
    }
    learned_block<float> const learner_of(original, s.weights, rounding);
    std::vector<matrix> const targets(s.how.auxiliary ? 2 : 1, forward(floats, x, rows));
    auto const found = learn(learner_of, first, s.how, x, targets, rows);
    matrix const expected = learner_of.forward(learner_of.quantized(found.parameters), x, rows);

    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            auto& layer = b.linear(place);
            auto& w = std::get<matrix>(layer.weight);
            auto const& how = learner.scales(place);
            auto const [low, high] = s.weights.grid().numbers();
            for (index_t i = 0; i < w.rows(); ++i) {
                for (index_t j = 0; j < w.cols(); ++j) {
                    index_t const tile = j / s.weights.width(w.cols());
                    std::vector<code> codes(1);
                    tile_scale const shared = how.scales.at(i, tile);
                    EXPECT_GE(shared.zero, low);
                    EXPECT_LE(shared.zero, high);
                    s.weights.grid().round(1, &w(i, j), shared, codes.data(), &w(i, j));
                }
            }
            if (s.activations) {
                layer.input = activation_quantizer(*s.activations);
            }
        }
    }
    // A rounding may fall to the other side.
    EXPECT_LE(distance(forward(b, x, rows), expected), (s.activations ? 3e-2 : 1e-5) * double(expected.norm()));
}

TEST_P(learning_of, gives_the_same_bits_for_any_number_of_threads) {
    auto const& s = GetParam();
    auto const run = [&](executor_ref executor) {
        block b = test::random_decoder(s.model).blocks[0];
        learning_options how = s.how;
        how.epochs = 2;
        block_learner learner(how, s.weights, s.activations, executor);
        learner(b, hidden_states(1), hidden_states(2), {.sequences = sequences});
        return std::pair{std::get<matrix>(b.mlps[0].up.weight), learner.scales({linear_role::up}).scales.scales};
    };
    serial one;
    thread_team three(3);
    EXPECT_EQ(run(one), run(three));
}

TEST_P(learning_of, resumes_with_the_same_bits_from_what_was_kept) {
    auto const& s = GetParam();
    auto const directory = std::filesystem::path(testing::TempDir()) / "detent_learned" / s.name;
    std::filesystem::remove_all(directory);
    auto const run = [&](learning_options const& how, progress report, unsigned seed = 1) {
        std::vector<std::pair<matrix, std::vector<float>>> all;
        block_learner learner(how, s.weights, s.activations, {}, std::move(report));
        learner.keep_in(directory);
        for (int i = 0; i < 2; ++i) { // two blocks
            block b = test::random_decoder(s.model).blocks[0];
            learner(b, hidden_states(seed), hidden_states(2), {.sequences = sequences});
            all.emplace_back(std::get<matrix>(b.mlps[0].up.weight), learner.scales({linear_role::up}).scales.scales);
        }
        EXPECT_EQ(std::ssize(learner.losses()[1]), how.epochs);
        return all;
    };
    learning_options how = s.how;
    how.epochs = 2;
    int steps = 0;
    auto const in_the_second = [&](std::string_view, double) { return ++steps < 8; };
    EXPECT_THROW(run(how, in_the_second), cancelled);
    EXPECT_TRUE(std::filesystem::exists(directory / "block.0.safetensors"));
    EXPECT_FALSE(std::filesystem::exists(directory / "block.1.safetensors"));
    auto const resumed = run(how, {});
    EXPECT_EQ(run(how, [](std::string_view, double) { return false; }), resumed); // no step is taken
    std::filesystem::remove_all(directory);
    EXPECT_EQ(run(how, {}), resumed);

    learning_options other = how;
    other.clip_rate *= 2;
    EXPECT_THROW(run(other, {}), error);
    EXPECT_THROW(run(how, {}, 7), error);
    auto const file = directory / "block.0.safetensors";
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
    EXPECT_THROW(run(how, {}), error);
    std::filesystem::remove_all(directory);
}

TEST(learn, what_was_published_depends_on_bits_and_norms) {
    learning_options const asked{.published = true};
    EXPECT_EQ(asked.for_model(3, 16, false), (learning_options{.clip = true}));
    EXPECT_EQ(asked.for_model(2, 16, false), (learning_options{.clip = true, .auxiliary = true, .epochs = 40}));
    EXPECT_EQ(asked.for_model(6, 6, false), (learning_options{.clip = true, .transform = true}));
    EXPECT_EQ(asked.for_model(4, 4, false), (learning_options{.clip = true, .transform = true, .auxiliary = true}));
    EXPECT_EQ(asked.for_model(3, 16, true), (learning_options{.clip = true, .transform = true}));
    EXPECT_EQ(asked.for_model(4, 4, true), (learning_options{.clip = true, .transform = true, .alpha = 0.75}));
    learning_options const shorter{.published = true, .epochs = 5};
    EXPECT_EQ(shorter.for_model(2, 16, true), (learning_options{.clip = true, .transform = true, .epochs = 5}));
    EXPECT_EQ((learning_options{.clip = true}.for_model(2, 4, true)), (learning_options{.clip = true}));
}

TEST(learn, a_transform_reaches_from_up_to_down_where_it_is_asked_to) {
    block b = test::random_decoder(test::llama_json()).blocks[0];
    matrix const x = hidden_states(1);
    auto const numbers = dense<float>(b);
    EXPECT_EQ(first_transform(numbers, x, {.sequences = sequences}, {.transform = true}, true).hidden.size(), 0U);
    learning_options const how{.transform = true, .hidden = true, .epochs = 2};
    auto const first = first_transform(numbers, x, {.sequences = sequences}, how, true);
    ASSERT_EQ(first.hidden.size(), 1U);
    EXPECT_EQ(first.hidden.front().size(), numbers.mlps[0].up.weight.rows());
    matrix const expected = forward(b, x, {.sequences = sequences});
    block_learner learner(how, fake_quantizer<float>(any_grid(int_grid<4>{}), 0), any_grid(int_grid<4>{}));
    learner(b, x, x, {.sequences = sequences});
    b.head_input.reset();
    EXPECT_LE(distance(forward(b, x, {.sequences = sequences}), expected), 1e-5 * double(expected.norm()));
}

/// Learns clips and a transform of the first block of `form`, and returns it and the learner.
std::pair<block, block_learner> learned_form(test::decoder_form const& form, std::optional<any_grid> activations = {},
                                             std::filesystem::path const& directory = {}) {
    block b = test::random_decoder(form.configuration).blocks[0];
    learning_options const how{.clip = true, .transform = true, .hidden = true, .epochs = 5};
    block_learner learner(how, fake_quantizer<float>(any_grid(int_grid<3>{}), 5), std::move(activations));
    if (!directory.empty()) {
        learner.keep_in(directory);
    }
    learner(b, hidden_states(1), hidden_states(1), {.sequences = sequences});
    return {std::move(b), std::move(learner)};
}

TEST(learn, every_form_of_block_is_transformed_and_computes_what_it_did) {
    for (auto const& form : test::decoder_forms()) {
        SCOPED_TRACE(form.name);
        block const floats = test::random_decoder(form.configuration).blocks[0];
        auto [b, learner] = learned_form(form, any_grid(int_grid<6>{}));
        b.head_input.reset();
        matrix const x = hidden_states(1), expected = forward(floats, x, {.sequences = sequences});
        EXPECT_LE(distance(forward(b, x, {.sequences = sequences}), expected), 2e-5 * double(expected.norm()));
        for (auto const& group : b.groups()) {
            for (layer_place const place : group) {
                extents const shape = b.linear(place).shape();
                EXPECT_EQ(learner.scales(place).scales.tiles, (extents{shape.rows, ceil_div(shape.cols, 5)}));
            }
        }
        for (site const at : all_sites) {
            auto const place = readers_of(b, at);
            if (!place.empty() && scale_obstacle(b, at).empty()) {
                EXPECT_NE(std::get<matrix>(b.linear(place.front()).weight),
                          std::get<matrix>(floats.linear(place.front()).weight));
            }
        }
    }
}

TEST(learn, what_was_kept_of_one_form_is_not_taken_for_another) {
    auto const directory = std::filesystem::path(testing::TempDir()) / "detent_learned_forms";
    std::filesystem::remove_all(directory);
    auto form = test::decoder_forms().front();
    auto const expected = learned_form(form, {}, directory).first;
    EXPECT_EQ(std::get<matrix>(learned_form(form, {}, directory).first.mlps[0].up.weight),
              std::get<matrix>(expected.mlps[0].up.weight));
    auto const expect_refused = [&](char const* what, auto const& change) {
        auto other = form;
        change(other.configuration);
        EXPECT_THROW(learned_form(other, {}, directory), error) << what;
    };
    expect_refused("window", [](auto& c) { c.layers[0].window = 5; });
    expect_refused("soft cap", [](auto& c) { c.attention.soft_cap = 3; });
    expect_refused("slopes", [](auto& c) { c.attention.slopes = {0.1F, 0.2F, 0.3F, 0.4F}; });
    expect_refused("scale", [](auto& c) { c.attention.scale = 0.1; });
    expect_refused("positions", [](auto& c) { c.layers[0].rotary->base = 600; });
    expect_refused("pairs", [](auto& c) { c.layers[0].rotary->interleaved = true; });
    expect_refused("gate", [](auto& c) { c.gate.kind = nn::activation::gelu; });
    expect_refused("residual", [](auto& c) { c.residual_multiplier = 0.5; });
    expect_refused("eps", [](auto& c) { c.norm_eps = 1e-3F; });
    std::filesystem::remove_all(directory);

    for (auto const& with_experts : test::decoder_forms()) {
        if (with_experts.name == "experts") {
            form = with_experts;
        }
    }
    auto const experts = learned_form(form, {}, directory).first;
    EXPECT_EQ(std::get<matrix>(learned_form(form, {}, directory).first.mlps[2].up.weight),
              std::get<matrix>(experts.mlps[2].up.weight));
    expect_refused("weights of experts", [](auto& c) { c.experts->routing.renormalized = false; });
    std::filesystem::remove_all(directory);
}

TEST(learn, a_loss_that_is_not_finite_ends_it) {
    block b = test::random_decoder(test::llama_json()).blocks[0];
    matrix x = hidden_states(1);
    x(30, 3) = std::numeric_limits<float>::quiet_NaN();
    block_learner learner({.clip = true, .epochs = 1}, fake_quantizer<float>(any_grid(int_grid<4>{}), 0));
    EXPECT_THROW(learner(b, x, x, {.sequences = sequences}), error);
}

TEST(learn, can_be_cancelled) {
    block b = test::random_decoder(test::llama_json()).blocks[0];
    matrix const x = hidden_states(1);
    block_learner learner({.clip = true, .epochs = 1}, fake_quantizer<float>(any_grid(int_grid<4>{}), 0), {}, {},
                          [](std::string_view, double done) { return done < 0.5; });
    EXPECT_THROW(learner(b, x, x, {.sequences = sequences}), cancelled);
}

} // namespace
} // namespace detent
