// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/calibrate/fold_transform.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/sites.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/rtn.hpp"
#include "detent/transform/hadamard.hpp"
#include "detent/transform/in_order.hpp"
#include "detent/transform/power_of_two.hpp"
#include "detent/transform/smooth.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_map.hpp"
#include "model/random_decoder.hpp"

namespace detent {
namespace {

/// Whether a layer has other weights than before.
bool changed(block const& now, block const& was, layer_place place) {
    auto const* const before = std::get_if<matrix>(&was.linear(place).weight);
    return before != nullptr && std::get<matrix>(now.linear(place).weight) != *before;
}

/// Whether a layer of `b` reads or writes what scales can be folded into.
bool is_scaled(block const& b, layer_place place) {
    return can_fold(b, site_read_by(b, place.role), place.expert) ||
           (place.role == linear_role::value && can_fold(b, site::context)) ||
           (place.role == linear_role::up && can_fold(b, site::hidden, place.expert));
}

class fold_transform_of : public testing::TestWithParam<test::decoder_form> {
protected:
    decoder const model_ = test::random_decoder(GetParam().configuration);
    std::vector<nn::token_id> const tokens_ = test::some_tokens(3 * 12 + 5);
    calibration const text_{.tokens = tokens_, .window = 12, .windows = 3};
    std::vector<nn::token_id> const others_ = test::some_tokens(17);

    matrix logits(decoder const& model) const { return model.forward(others_); }

    template <Transform T> decoder folded(T const& transform, executor_ref executor = {}) const {
        decoder model = model_;
        fold_transform(model, transform, text_, executor);
        return model;
    }
};

INSTANTIATE_TEST_SUITE_P(, fold_transform_of, testing::ValuesIn(test::decoder_forms()),
                         [](auto const& test) { return test.param.name; });

TEST_P(fold_transform_of, smooth_keeps_the_function) {
    matrix const expected = logits(model_);
    for (float const exponent : {0.0F, 0.5F, 1.0F}) {
        decoder const model = folded(smooth<>{exponent});
        matrix const difference = logits(model) - expected;
        EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff()) << exponent;
        for (std::size_t i = 0; i < model.blocks.size(); ++i) {
            for (layer_place const place : model_.blocks[i].places()) {
                EXPECT_EQ(changed(model.blocks[i], model_.blocks[i], place), is_scaled(model_.blocks[i], place))
                    << model_.blocks[i].linear(place).name;
            }
        }
    }
}

TEST_P(fold_transform_of, powers_of_two_keep_every_bit) {
    decoder const model = folded(power_of_two{});
    EXPECT_EQ(logits(model), logits(model_));
    for (std::size_t i = 0; i < model.blocks.size(); ++i) { // the inputs of layers are not all alike
        EXPECT_EQ(changed(model.blocks[i], model_.blocks[i], {linear_role::query}),
                  can_fold(model_.blocks[i], site::attention_input))
            << i;
    }
}

TEST_P(fold_transform_of, fits_one_map_to_all_that_read_an_input) {
    decoder const model = folded(smooth<>{});
    block const& b = model_.blocks[0];
    matrix const x = model_.embed(std::span(tokens_).first(36), {.sequences = 3});
    if (!can_fold(b, site::attention_input)) {
        return;
    }
    std::vector<layer_place> const readers = readers_of(b, site::attention_input);
    ASSERT_EQ(readers.size(), b.shares_norm() ? 5U : 3U);
    float_vector weights = float_vector::Zero(12); // the largest of each column
    for (layer_place const place : readers) {
        weights =
            weights.cwiseMax(std::get<matrix>(b.linear(place).weight).cwiseAbs().colwise().maxCoeff().transpose());
    }
    block_tape<float> tape;
    forward<linear_layer, float>(b, x, {.sequences = 3}, tape);
    float_vector const inputs = tape.attention_input.raw.cwiseAbs().colwise().maxCoeff().transpose();
    float_vector const scales = smoothing_scales(inputs, weights, 0.5F);
    EXPECT_TRUE(model.blocks[0].attention_norms.input->weight.isApprox(
        b.attention_norms.input->weight.cwiseQuotient(scales), 1e-5F));
    for (linear_role const role : {linear_role::query, linear_role::key}) { // value also writes the next activation
        EXPECT_TRUE(std::get<matrix>(model.blocks[0].linear({role}).weight)
                        .isApprox(std::get<matrix>(b.linear({role}).weight) * scales.asDiagonal(), 1e-5F));
    }
}

TEST_P(fold_transform_of, leaves_alone_what_cannot_be_folded) {
    decoder model = model_;
    linear_layer& up = model.blocks[1].mlps.front().up; // which reads one site, and writes another
    problem_of const p{int_grid<8>{}, per_channel{}, minmax_range{}};
    up.weight = pack(rtn{}.solve(std::get<matrix>(up.weight), {}, p));
    decoder const before = model;
    fold_transform(model, smooth<>{}, text_);
    EXPECT_FALSE(can_fold(before.blocks[1], site_read_by(before.blocks[1], linear_role::up)));
    EXPECT_FALSE(can_fold(before.blocks[1], site::hidden));
    for (layer_place const place : before.blocks[1].places()) {
        bool const packed = std::holds_alternative<packed_matrix>(before.blocks[1].linear(place).weight);
        EXPECT_EQ(changed(model.blocks[1], before.blocks[1], place), !packed && is_scaled(before.blocks[1], place))
            << before.blocks[1].linear(place).name;
    }
    EXPECT_TRUE(std::get<packed_matrix>(up.weight) == std::get<packed_matrix>(before.blocks[1].mlps.front().up.weight));
    matrix const expected = logits(before);
    EXPECT_LE((logits(model) - expected).cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff());
}

TEST_P(fold_transform_of, refuses_maps_that_do_more_than_multiply) {
    for (auto const& fold :
         {std::function<void(decoder&)>([&](decoder& m) { fold_transform(m, hadamard<4>{}, text_); }),
          std::function<void(decoder&)>([&](decoder& m) { fold_transform(m, in_order{}, text_); })}) {
        decoder model = model_;
        EXPECT_EQ(failure_message([&] { fold(model); }),
                  "transform: cannot be folded: it does more than multiply every channel");
        EXPECT_EQ(logits(model), logits(model_));
    }
}

TEST_P(fold_transform_of, says_what_is_wrong_and_can_be_cancelled) {
    decoder model = model_;
    EXPECT_EQ(failure_message([&] { fold_transform(model, smooth<>{}, {.tokens = tokens_, .window = 100}); }),
              "calibration text: gives no window of 100 tokens");
    EXPECT_EQ(failure_message([&] { fold_transform(model, smooth<>{}, {.tokens = tokens_, .window = 0}); }),
              "calibration text: gives no window of 0 tokens");
    EXPECT_TRUE(contains(failure_message([&] { fold_transform(model, smooth<>{2}, text_); }), "smooth"));
    EXPECT_THROW(fold_transform(model, smooth<>{}, text_, {}, [](std::string_view, double) { return false; }),
                 cancelled);
    EXPECT_EQ(logits(model), logits(model_));
}

// An expert that no token reaches has nothing to fit scales to, unless it is shown all of them.
TEST(fold_transform, needs_tokens_of_an_expert) {
    for (auto const& form : test::decoder_forms()) {
        if (form.name != "experts_sigmoid_and_shared") {
            continue;
        }
        decoder model = test::random_decoder(form.configuration);
        for (block& b : model.blocks) {
            b.router.value().bias(2) = -1000;
        }
        auto const tokens = test::some_tokens(24);
        for (bool const all : {false, true}) {
            decoder folded = model;
            fold_transform(folded, smooth<>{}, {.tokens = tokens, .window = 12, .windows = 2, .all_experts = all});
            for (index_t e = 0; e < 4; ++e) {
                EXPECT_EQ(changed(folded.blocks[0], model.blocks[0], {linear_role::down, e}), e != 2 || all) << e;
            }
            matrix const expected = model.forward(tokens);
            EXPECT_LE((folded.forward(tokens) - expected).cwiseAbs().maxCoeff(),
                      1e-5F * expected.cwiseAbs().maxCoeff());
        }
    }
}

TEST_P(fold_transform_of, threads_do_not_change_a_bit) {
    thread_team three(3);
    EXPECT_EQ(logits(folded(smooth<>{}, three)), logits(folded(smooth<>{})));
}

TEST(factors_of, multiplies_those_of_all_steps) {
    EXPECT_EQ(factors_of({}, 3), float_vector::Ones(3));
    input_map map(diagonal{{1, 2, 3}}, 3);
    map.then(diagonal{{4, 5, -0.5F}}, 3);
    float_vector expected(3);
    expected << 4, 10, -1.5F;
    EXPECT_EQ(factors_of(map, 3), expected);
    for (std::string const kind : {"p", "h", "dp", "hd"}) {
        EXPECT_EQ(failure_message([&] { factors_of(test::random_map(kind, 8, 4), 8); }),
                  "transform: cannot be folded: it does more than multiply every channel")
            << kind;
    }
}

} // namespace
} // namespace detent
