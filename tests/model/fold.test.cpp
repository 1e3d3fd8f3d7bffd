// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/calibrate/perplexity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/tokens.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/load.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/transform/channel_scale.hpp"
#include "random_decoder.hpp"

namespace detent {
namespace {

/// A place where scales can be folded: a site, of `hidden` in one network.
struct place {
    site at;
    index_t network = 0;
};

std::vector<place> places_of(block const& b) {
    std::vector<place> all{{site::attention_input}, {site::context}, {site::mlp_input}};
    for (index_t e = 0; e < std::ssize(b.mlps); ++e) {
        all.push_back({site::hidden, e});
    }
    return all;
}

std::vector<place> foldable_places_of(block const& b) {
    std::vector<place> all = places_of(b);
    std::erase_if(all, [&](place const& p) { return !can_fold(b, p.at, p.network); });
    return all;
}

std::string text_of(place const& p) { return std::to_string(int(p.at)) + "." + std::to_string(p.network); }

/// Random scales for a place in `b`, shared where heads share values.
float_vector scales_for(block const& b, place const& p, std::function<float()> const& draw) {
    float_vector const scales = float_vector::NullaryExpr(channels_of(b, p.at, p.network), draw);
    return p.at == site::context ? shared_by_heads(scales, b.heads) : scales;
}

/// The activation at a place of `b`, given its input.
matrix activation_at(block const& b, place const& p, matrix const& x) {
    block_tape<float> tape;
    forward<linear_layer, float>(b, x, {.sequences = 2}, tape);
    switch (p.at) {
    case site::attention_input:
        return tape.attention_input.raw;
    case site::context:
        return tape.context.raw;
    case site::mlp_input:
        return tape.mlp_input.raw;
    case site::hidden:
        break;
    }
    return tape.mlps[static_cast<std::size_t>(p.network)].hidden.raw;
}

/// Whether scales at one place change the activation at another.
bool scales_with(block const& b, place const& scaled, place const& other) {
    bool const same = scaled.at == other.at && scaled.network == other.network;
    return same || (b.shares_norm() && scaled.at == site::attention_input && other.at == site::mlp_input);
}

/// Blocks of every form.
class fold_in : public testing::TestWithParam<test::decoder_form> {
protected:
    decoder const model_ = test::random_decoder(GetParam().configuration);
    block const& b_ = model_.blocks[1];
    nn::token_rows const rows_{.sequences = 2};
    matrix const x_ = model_.embed(test::some_tokens(34), rows_); // (token, hidden)
    std::vector<place> const places_ = foldable_places_of(b_);
    std::mt19937 random_{3};

    /// One of 2^-5, ..., 2^5.
    float power_of_two() { return std::ldexp(1.0F, std::uniform_int_distribution<int>(-5, 5)(random_)); }
    /// From 0.1 to 10.
    float positive() { return std::pow(10.0F, std::uniform_real_distribution<float>(-1, 1)(random_)); }
};

// A power of two changes the exponents of numbers and never their digits. It passes every operation from the producer
// to its readers: norms and products end in a sum of one channel, which is rounded alike in any scale; attention takes
// means of one value channel with weights that know nothing of it; ReLU and the product with the gate work on one
// channel. In the products of the readers, the scale of an input and that of its column cancel before any sum. Nothing
// here comes near subnormal numbers or overflows.
TEST_P(fold_in, powers_of_two_keep_every_bit) {
    matrix const expected = forward(b_, x_, rows_);
    block all = b_;
    for (place const& p : places_) {
        float_vector const scales = scales_for(b_, p, [&] { return power_of_two(); });
        ASSERT_GT(scales.maxCoeff(), scales.minCoeff());
        block one = b_;
        fold(one, p.at, scales, p.network);
        EXPECT_EQ(forward(one, x_, rows_), expected) << text_of(p);
        for (place const& other : places_of(b_)) {
            matrix const before = activation_at(b_, other, x_);
            matrix const after = activation_at(one, other, x_);
            EXPECT_EQ(after, scales_with(b_, p, other) ? matrix(before * scales.asDiagonal()) : before)
                << text_of(p) << ' ' << text_of(other);
        }
        fold(all, p.at, scales, p.network);
    }
    EXPECT_EQ(forward(all, x_, rows_), expected);
}

TEST_P(fold_in, any_positive_scales_keep_the_function) {
    matrix const expected = forward(b_, x_, rows_);
    block all = b_;
    for (place const& p : places_) {
        float_vector const scales = scales_for(b_, p, [&] { return positive(); });
        block one = b_;
        fold(one, p.at, scales, p.network);
        matrix const difference = forward(one, x_, rows_) - expected;
        EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff()) << text_of(p);
        matrix const scaled = activation_at(b_, p, x_) * scales.asDiagonal();
        matrix const off = activation_at(one, p, x_) - scaled;
        EXPECT_LE(off.cwiseAbs().maxCoeff(), 1e-5F * scaled.cwiseAbs().maxCoeff()) << text_of(p);
        fold(all, p.at, scales, p.network);
    }
    matrix const difference = forward(all, x_, rows_) - expected;
    EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff());
}

TEST_P(fold_in, inverse_powers_of_two_restore_the_weights) {
    block b = b_;
    for (place const& p : places_) {
        float_vector const scales = scales_for(b_, p, [&] { return power_of_two(); });
        fold(b, p.at, scales, p.network);
        fold(b, p.at, scales.cwiseInverse(), p.network);
    }
    auto const expect_same = [](branch_norm_layers<float> const& now, branch_norm_layers<float> const& was) {
        ASSERT_EQ(now.input.has_value(), was.input.has_value());
        if (now.input) {
            EXPECT_EQ(now.input->weight, was.input->weight);
            EXPECT_EQ(now.input->bias, was.input->bias);
        }
    };
    expect_same(b.attention_norms, b_.attention_norms);
    expect_same(b.mlp_norms, b_.mlp_norms);
    for (layer_place const at : b.places()) {
        EXPECT_EQ(std::get<matrix>(b.linear(at).weight), std::get<matrix>(b_.linear(at).weight));
        EXPECT_EQ(b.linear(at).bias, b_.linear(at).bias);
    }
}

TEST_P(fold_in, wrong_scales_are_named_and_change_nothing) {
    for (place const& p : places_) {
        block b = b_;
        index_t const channels = channels_of(b, p.at, p.network);
        float_vector not_positive = float_vector::Constant(channels, 2);
        not_positive(5) = 0;
        for (float_vector const& wrong :
             {float_vector(float_vector::Constant(channels + 1, 2)), float_vector(), not_positive}) {
            try {
                fold(b, p.at, wrong, p.network);
                FAIL() << text_of(p);
            } catch (error const& e) {
                EXPECT_NE(e.subject().find("scales of what 'layers.1."), std::string::npos) << e.what();
            }
        }
        EXPECT_EQ(forward(b, x_, rows_), forward(b_, x_, rows_));
    }
}

// What can be scaled, and what not, is said of each form.
TEST_P(fold_in, is_refused_where_it_would_not_be_exact) {
    std::string const form = GetParam().name;
    bool const no_input_norm = form == "norms_after" || form == "norms_of_sums";
    bool const through = b_.mlps.front().gate ? form != "experts_with_limits" : form == "plain_relu";
    EXPECT_EQ(can_fold(b_, site::attention_input), !no_input_norm);
    EXPECT_EQ(can_fold(b_, site::mlp_input), !no_input_norm && form != "parallel_shared_norm");
    EXPECT_TRUE(can_fold(b_, site::context));
    for (index_t e = 0; e < std::ssize(b_.mlps); ++e) {
        EXPECT_EQ(can_fold(b_, site::hidden, e), through) << e;
    }
    for (place const& p : places_of(b_)) {
        if (auto const obstacle = fold_obstacle(b_, p.at, p.network)) {
            EXPECT_NE(obstacle->subject().find("layer 'layers.1."), std::string::npos) << obstacle->what();
        }
    }
}

INSTANTIATE_TEST_SUITE_P(every_form, fold_in, testing::ValuesIn(test::decoder_forms()),
                         [](auto const& test) { return test.param.name; });

std::string message_of(block b, site at, float_vector const& scales) {
    try {
        fold(b, at, scales);
    } catch (error const& e) {
        return e.what();
    }
    return {};
}

TEST(fold, needs_the_same_scales_in_a_group_of_query_heads) {
    block const b = test::random_decoder(test::llama_json()).blocks[1]; // two query heads of 6 read one value head
    float_vector scales = float_vector::Ones(channels_of(b, site::context));
    EXPECT_EQ(message_of(b, site::context, scales), "");
    scales(7) = 2;
    EXPECT_NE(message_of(b, site::context, scales).find("'layers.1.self_attn.v_proj'"), std::string::npos);
    scales(1) = 2;
    EXPECT_EQ(message_of(b, site::context, scales), "");
}

TEST(fold, does_not_pass_a_gelu) {
    for (auto const activation : {nn::activation::gelu, nn::activation::gelu_tanh, nn::activation::silu}) {
        block b = test::random_decoder(test::opt_json()).blocks[1];
        b.gate_form.kind = activation;
        EXPECT_FALSE(can_fold(b, site::hidden));
        EXPECT_NE(message_of(b, site::hidden, float_vector::Ones(20)).find("'layers.1.fc1'"), std::string::npos);
        EXPECT_TRUE(can_fold(b, site::attention_input));
        EXPECT_TRUE(can_fold(b, site::context));
        EXPECT_TRUE(can_fold(b, site::mlp_input));
    }
}

// Where branches have no norm before them, their input is the residual stream, which has other readers.
TEST(fold, does_not_scale_the_residual_stream) {
    decoder const model = test::random_decoder(test::opt_json());
    block b = model.blocks[1];
    b.attention_norms.sum = std::exchange(b.attention_norms.input, {});
    b.mlp_norms.sum = std::exchange(b.mlp_norms.input, {});
    nn::token_rows const rows{};
    matrix const x = model.embed(test::some_tokens(9), rows);
    matrix const expected = forward(b, x, rows);
    for (auto const& [at, layer] :
         {std::pair<site, std::string>{site::attention_input, "self_attn.q_proj"}, {site::mlp_input, "fc1"}}) {
        EXPECT_FALSE(can_fold(b, at));
        EXPECT_NE(message_of(b, at, float_vector::Ones(12)).find("'layers.1." + layer + "'"), std::string::npos);
    }
    ASSERT_TRUE(can_fold(b, site::context));
    fold(b, site::context, float_vector::Constant(12, 4));
    EXPECT_EQ(forward(b, x, rows), expected);
}

TEST(fold, needs_float_weights_on_both_sides) {
    using role = linear_role;
    struct {
        role packed;
        std::vector<site> obstructed;
    } const cases[] = {{role::query, {site::attention_input}},
                       {role::key, {site::attention_input}},
                       {role::value, {site::attention_input, site::context}},
                       {role::output, {site::context}},
                       {role::gate, {site::mlp_input}},
                       {role::up, {site::mlp_input, site::hidden}},
                       {role::down, {site::hidden}}};
    block const whole = test::random_decoder(test::llama_json()).blocks[1];
    for (auto const& c : cases) {
        block b = whole;
        auto& layer = b.linear({c.packed});
        layer.weight = packed_matrix(quantizer<int_grid<8>, per_channel>{}(std::get<matrix>(layer.weight)).packed());
        for (site const at : all_sites) {
            bool const obstructed = std::ranges::find(c.obstructed, at) != c.obstructed.end();
            EXPECT_EQ(can_fold(b, at), !obstructed) << layer.name << ' ' << int(at);
            auto const message = message_of(b, at, float_vector::Ones(channels_of(b, at)));
            EXPECT_EQ(message.find("layer '" + layer.name + "'") != std::string::npos, obstructed) << message;
        }
    }
}

// One expert in codes stands in the way of what all experts read, and of its own hidden channels only.
TEST(fold, needs_float_weights_of_all_experts) {
    decoder model;
    for (auto const& form : test::decoder_forms()) {
        if (form.name == "experts_sigmoid_and_shared") {
            model = test::random_decoder(form.configuration);
        }
    }
    block& b = model.blocks.at(1);
    auto& up = b.linear({linear_role::up, 1});
    up.weight = packed_matrix(quantizer<int_grid<8>, per_channel>{}(std::get<matrix>(up.weight)).packed());
    EXPECT_FALSE(can_fold(b, site::mlp_input));
    for (index_t e = 0; e < std::ssize(b.mlps); ++e) {
        EXPECT_EQ(can_fold(b, site::hidden, e), e != 1) << e;
    }
    EXPECT_TRUE(can_fold(b, site::attention_input));
}

TEST(fold, needs_readers_of_float_inputs) {
    block const whole = test::random_decoder(test::llama_json()).blocks[1];
    for (site const quantized : all_sites) {
        for (auto const place : readers_of(whole, quantized)) {
            block b = whole;
            b.linear(place).input.emplace(any_grid(int_grid<8>{}));
            for (site const at : all_sites) {
                EXPECT_EQ(can_fold(b, at), at != quantized) << b.linear(place).name << ' ' << int(at);
                auto const message = message_of(b, at, float_vector::Ones(channels_of(b, at)));
                EXPECT_EQ(message.find("layer '" + b.linear(place).name + "'") != std::string::npos, at == quantized);
            }
        }
    }
}

TEST(plant_outliers, makes_channels_large_and_keeps_the_function) {
    auto const model = test::random_decoder(test::llama_json());
    auto planted = model;
    plant_outliers(planted, 16, 3); // of 12 channels
    auto const tokens = test::some_tokens(16);
    EXPECT_EQ(planted.forward(tokens), model.forward(tokens));
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        for (auto const norms : {&block::attention_norms, &block::mlp_norms}) {
            float_vector const& before = (model.blocks[i].*norms).input->weight;
            float_vector const& after = (planted.blocks[i].*norms).input->weight;
            for (index_t c = 0; c < 12; ++c) {
                EXPECT_EQ(after(c), before(c) * (c == 2 || c == 6 || c == 10 ? 16 : 1)) << c;
            }
        }
    }
    EXPECT_THROW(plant_outliers(planted, 16, 13), error);
    EXPECT_THROW(plant_outliers(planted, 0, 1), error);
}

TEST(plant_outliers, scales_a_norm_that_branches_share_once) {
    for (auto const& form : test::decoder_forms()) {
        if (form.name == "parallel_shared_norm") {
            auto const model = test::random_decoder(form.configuration);
            auto planted = model;
            plant_outliers(planted, 16, 3);
            auto const tokens = test::some_tokens(16);
            EXPECT_EQ(planted.forward(tokens), model.forward(tokens));
            EXPECT_EQ(planted.blocks[0].attention_norms.input->weight(2),
                      16 * model.blocks[0].attention_norms.input->weight(2));
        }
    }
}

TEST(plant_outliers, does_not_change_perplexity) {
    auto const text = io::read_tokens(DETENT_EXAMPLES_DIR "/text/novels_evaluation.txt");
    std::span const tokens = std::span(text).first(3 * 64);
    for (std::string const name : {"tiny-llama", "tiny-opt"}) {
        auto const model = load_decoder(DETENT_EXAMPLES_DIR "/models/" + name);
        double const expected = perplexity(model, tokens, 64);
        for (float const factor : {16.0F, 10.0F}) {
            auto planted = model;
            plant_outliers(planted, factor);
            EXPECT_NEAR(perplexity(planted, tokens, 64), expected, 1e-5 * expected) << name << ' ' << factor;
        }
    }
}

} // namespace
} // namespace detent
