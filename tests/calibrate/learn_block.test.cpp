// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/calibrate/learn_block.hpp"

#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
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
INSTANTIATE_TEST_SUITE_P(
    , learning_of,
    testing::Values(setting{"llama_lwc", test::llama_json(), {.clip = true, .epochs = 40},
                            fake_quantizer<float>(any_grid(int_grid<2>{}), 5, float_format::f16), {}},
                    setting{"llama_lwc_let_int4", test::llama_json(),
                            {.clip = true, .transform = true, .epochs = 40, .transform_rate = 1e-3},
                            fake_quantizer<float>(any_grid(int_grid<4>{}), 0, float_format::f16),
                            any_grid(int_grid<4>{})},
                    setting{"opt_let_fp4", test::opt_json(), {.transform = true, .auxiliary = true, .epochs = 40},
                            fake_quantizer<float>(any_grid(fp_grid<2, 1>{}), 0, float_format::f16),
                            any_grid(fp_grid<2, 1>{})},
                    setting{"opt_lwc_let_int6", test::opt_json(),
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
    matrix const expected = floats.forward(x, rows);
    EXPECT_LE(distance(unrounded.forward(x, rows), expected), 1e-5 * static_cast<double>(expected.norm()));
    if (s.how.transform) {
        EXPECT_GT(distance(std::get<matrix>(b.up.weight), std::get<matrix>(floats.up.weight)), 0.1);
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
    for (linear_role const role : block_roles) {
        auto const& w = original[role].weight;
        if (s.how.clip && w.size() > 0) {
            first.clips[static_cast<std::size_t>(role)] =
                learned_clip<float>::of(w.rows(), s.weights.tiles_of(w.cols()));
        }
    }
    learned_block<float> const learner_of(original, s.weights, rounding);
    std::vector<matrix> const targets(s.how.auxiliary ? 2 : 1, floats.forward(x, rows));
    auto const found = learn(learner_of, first, s.how, x, targets, rows);
    matrix const expected = learner_of.forward(learner_of.quantized(found.parameters), x, rows);

    for (auto const& group : b.groups()) {
        for (linear_role const role : group) {
            auto& layer = b.linear(role);
            auto& w = std::get<matrix>(layer.weight);
            auto const& how = learner.scales(role);
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
    EXPECT_LE(distance(b.forward(x, rows), expected), (s.activations ? 3e-2 : 1e-5) * double(expected.norm()));
}

TEST_P(learning_of, gives_the_same_bits_for_any_number_of_threads) {
    auto const& s = GetParam();
    auto const run = [&](executor_ref executor) {
        block b = test::random_decoder(s.model).blocks[0];
        learning_options how = s.how;
        how.epochs = 2;
        block_learner learner(how, s.weights, s.activations, executor);
        learner(b, hidden_states(1), hidden_states(2), {.sequences = sequences});
        return std::pair{std::get<matrix>(b.up.weight), learner.scales(linear_role::up).scales.scales};
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
            all.emplace_back(std::get<matrix>(b.up.weight), learner.scales(linear_role::up).scales.scales);
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
    EXPECT_EQ(first_transform(numbers, x, {.sequences = sequences}, {.transform = true}, true).hidden_scale.size(), 0);
    learning_options const how{.transform = true, .hidden = true, .epochs = 2};
    auto const first = first_transform(numbers, x, {.sequences = sequences}, how, true);
    EXPECT_EQ(first.hidden_scale.size(), numbers[linear_role::up].weight.rows());
    matrix const expected = b.forward(x, {.sequences = sequences});
    block_learner learner(how, fake_quantizer<float>(any_grid(int_grid<4>{}), 0), any_grid(int_grid<4>{}));
    learner(b, x, x, {.sequences = sequences});
    b.head_input.reset();
    EXPECT_LE(distance(b.forward(x, {.sequences = sequences}), expected), 1e-5 * double(expected.norm()));
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
