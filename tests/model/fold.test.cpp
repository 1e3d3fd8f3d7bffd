// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
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
#include "detent/model/fold.hpp"
#include "detent/model/load.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/transform/channel_scale.hpp"
#include "random_decoder.hpp"

namespace detent {
namespace {

nlohmann::json relu_json() {
    auto json = test::opt_json();
    json["activation_function"] = "relu";
    return json;
}

/// Random scales for a site of `b`, shared where heads share values.
float_vector scales_for(block const& b, fold_site site, std::function<float()> const& draw) {
    float_vector const scales = float_vector::NullaryExpr(channels_of(b, site), draw);
    return site == fold_site::attention_context ? shared_by_heads(scales, b.heads) : scales;
}

/// The activation at `site` of `b`, given its input.
matrix activation_at(block const& b, fold_site site, matrix const& x) {
    nn::token_rows const rows{.sequences = 2};
    matrix const input = b.attention_input(x);
    matrix const context = b.attention_context(input, rows);
    matrix const middle = x + b.output.forward(context);
    switch (site) {
    case fold_site::attention_input:
        return input;
    case fold_site::attention_context:
        return context;
    case fold_site::mlp_input:
        return b.mlp_input(middle);
    case fold_site::mlp_hidden:
        break;
    }
    return b.mlp_hidden(b.mlp_input(middle));
}

/// The layers of both families that fold at every site.
class fold_in : public testing::TestWithParam<nlohmann::json> {
protected:
    decoder const model_ = test::random_decoder(GetParam());
    block const& b_ = model_.blocks[1];
    nn::token_rows const rows_{.sequences = 2};
    matrix const x_ = model_.embed(test::some_tokens(34), rows_); // (token, hidden)
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
    matrix const expected = b_.forward(x_, rows_);
    block all = b_;
    for (fold_site const site : fold_sites) {
        ASSERT_TRUE(can_fold(b_, site));
        float_vector const scales = scales_for(b_, site, [&] { return power_of_two(); });
        ASSERT_GT(scales.maxCoeff(), scales.minCoeff());
        block one = b_;
        fold(one, site, scales);
        EXPECT_EQ(one.forward(x_, rows_), expected) << int(site);
        matrix const scaled = activation_at(b_, site, x_) * scales.asDiagonal();
        EXPECT_EQ(activation_at(one, site, x_), scaled) << int(site);
        for (fold_site const other : fold_sites) {
            if (other != site) {
                EXPECT_EQ(activation_at(one, other, x_), activation_at(b_, other, x_)) << int(site) << int(other);
            }
        }
        fold(all, site, scales);
    }
    EXPECT_EQ(all.forward(x_, rows_), expected);
}

TEST_P(fold_in, any_positive_scales_keep_the_function) {
    matrix const expected = b_.forward(x_, rows_);
    block all = b_;
    for (fold_site const site : fold_sites) {
        float_vector const scales = scales_for(b_, site, [&] { return positive(); });
        block one = b_;
        fold(one, site, scales);
        matrix const difference = one.forward(x_, rows_) - expected;
        EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff()) << int(site);
        matrix const scaled = activation_at(b_, site, x_) * scales.asDiagonal();
        matrix const off = activation_at(one, site, x_) - scaled;
        EXPECT_LE(off.cwiseAbs().maxCoeff(), 1e-5F * scaled.cwiseAbs().maxCoeff()) << int(site);
        fold(all, site, scales);
    }
    matrix const difference = all.forward(x_, rows_) - expected;
    EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff());
}

TEST_P(fold_in, inverse_powers_of_two_restore_the_weights) {
    block b = b_;
    for (fold_site const site : fold_sites) {
        float_vector const scales = scales_for(b_, site, [&] { return power_of_two(); });
        fold(b, site, scales);
        fold(b, site, scales.cwiseInverse());
    }
    EXPECT_EQ(b.attention_norm.weight, b_.attention_norm.weight);
    EXPECT_EQ(b.attention_norm.bias, b_.attention_norm.bias);
    EXPECT_EQ(b.mlp_norm.weight, b_.mlp_norm.weight);
    for (auto const& group : b.groups()) {
        for (auto const role : group) {
            EXPECT_EQ(std::get<matrix>(b.linear(role).weight), std::get<matrix>(b_.linear(role).weight));
            EXPECT_EQ(b.linear(role).bias, b_.linear(role).bias);
        }
    }
}

TEST_P(fold_in, wrong_scales_are_named_and_change_nothing) {
    for (fold_site const site : fold_sites) {
        block b = b_;
        index_t const channels = channels_of(b, site);
        float_vector not_positive = float_vector::Constant(channels, 2);
        not_positive(5) = 0;
        for (float_vector const& wrong :
             {float_vector(float_vector::Constant(channels + 1, 2)), float_vector(), not_positive}) {
            try {
                fold(b, site, wrong);
                FAIL() << int(site);
            } catch (error const& e) {
                EXPECT_NE(e.subject().find("scales of what 'layers.1."), std::string::npos) << e.what();
            }
        }
        EXPECT_EQ(b.forward(x_, rows_), b_.forward(x_, rows_));
    }
}

INSTANTIATE_TEST_SUITE_P(both_families, fold_in, testing::Values(test::llama_json(), relu_json()),
                         [](auto const& test) { return test.param.at("model_type").template get<std::string>(); });

std::string message_of(block b, fold_site site, float_vector const& scales) {
    try {
        fold(b, site, scales);
    } catch (error const& e) {
        return e.what();
    }
    return {};
}

TEST(fold, needs_the_same_scales_in_a_group_of_query_heads) {
    block const b = test::random_decoder(test::llama_json()).blocks[1]; // two query heads of 6 read one value head
    float_vector scales = float_vector::Ones(channels_of(b, fold_site::attention_context));
    EXPECT_EQ(message_of(b, fold_site::attention_context, scales), "");
    scales(7) = 2;
    EXPECT_NE(message_of(b, fold_site::attention_context, scales).find("'layers.1.self_attn.v_proj'"),
              std::string::npos);
    scales(1) = 2;
    EXPECT_EQ(message_of(b, fold_site::attention_context, scales), "");
}

TEST(fold, does_not_pass_a_gelu) {
    for (auto const activation : {nn::activation::gelu, nn::activation::gelu_tanh, nn::activation::silu}) {
        block b = test::random_decoder(test::opt_json()).blocks[1];
        b.activation = activation;
        EXPECT_FALSE(can_fold(b, fold_site::mlp_hidden));
        EXPECT_NE(message_of(b, fold_site::mlp_hidden, float_vector::Ones(20)).find("'layers.1.fc1'"),
                  std::string::npos);
        EXPECT_TRUE(can_fold(b, fold_site::attention_input));
        EXPECT_TRUE(can_fold(b, fold_site::attention_context));
        EXPECT_TRUE(can_fold(b, fold_site::mlp_input));
    }
}

// Where norms come after their branches, the input of a branch is the residual stream, which has other readers.
TEST(fold, does_not_scale_the_residual_stream) {
    decoder const model = test::random_decoder(test::opt_json());
    block b = model.blocks[1];
    b.norms = norm_placement::after;
    nn::token_rows const rows{};
    matrix const x = model.embed(test::some_tokens(9), rows);
    matrix const expected = b.forward(x, rows);
    for (auto const& [site, layer] : {std::pair<fold_site, std::string>{fold_site::attention_input, "self_attn.q_proj"},
                                      {fold_site::mlp_input, "fc1"}}) {
        EXPECT_FALSE(can_fold(b, site));
        EXPECT_NE(message_of(b, site, float_vector::Ones(12)).find("'layers.1." + layer + "'"), std::string::npos);
    }
    ASSERT_TRUE(can_fold(b, fold_site::attention_context));
    fold(b, fold_site::attention_context, float_vector::Constant(12, 4));
    EXPECT_EQ(b.forward(x, rows), expected);
}

TEST(fold, needs_float_weights_on_both_sides) {
    using site = fold_site;
    using role = linear_role;
    struct {
        role packed;
        std::vector<site> obstructed;
    } const cases[] = {{role::query, {site::attention_input}},
                       {role::key, {site::attention_input}},
                       {role::value, {site::attention_input, site::attention_context}},
                       {role::output, {site::attention_context}},
                       {role::gate, {site::mlp_input}},
                       {role::up, {site::mlp_input, site::mlp_hidden}},
                       {role::down, {site::mlp_hidden}}};
    block const whole = test::random_decoder(test::llama_json()).blocks[1];
    for (auto const& c : cases) {
        block b = whole;
        auto& layer = b.linear(c.packed);
        layer.weight = packed_matrix(quantizer<int_grid<8>, per_channel>{}(std::get<matrix>(layer.weight)).packed());
        for (site const at : fold_sites) {
            bool const obstructed = std::ranges::find(c.obstructed, at) != c.obstructed.end();
            EXPECT_EQ(can_fold(b, at), !obstructed) << layer.name << ' ' << int(at);
            auto const message = message_of(b, at, float_vector::Ones(channels_of(b, at)));
            EXPECT_EQ(message.find("layer '" + layer.name + "'") != std::string::npos, obstructed) << message;
        }
    }
}

TEST(fold, needs_readers_of_float_inputs) {
    block const whole = test::random_decoder(test::llama_json()).blocks[1];
    for (fold_site const quantized : fold_sites) {
        for (auto const role : readers_of(whole, quantized)) {
            block b = whole;
            b.linear(role).input.emplace(any_grid(int_grid<8>{}));
            for (fold_site const site : fold_sites) {
                EXPECT_EQ(can_fold(b, site), site != quantized) << b.linear(role).name << ' ' << int(site);
                auto const message = message_of(b, site, float_vector::Ones(channels_of(b, site)));
                EXPECT_EQ(message.find("layer '" + b.linear(role).name + "'") != std::string::npos, site == quantized);
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
        for (auto const norm : {&block::attention_norm, &block::mlp_norm}) {
            float_vector const& before = (model.blocks[i].*norm).weight;
            float_vector const& after = (planted.blocks[i].*norm).weight;
            for (index_t c = 0; c < 12; ++c) {
                EXPECT_EQ(after(c), before(c) * (c == 2 || c == 6 || c == 10 ? 16 : 1)) << c;
            }
        }
    }
    EXPECT_THROW(plant_outliers(planted, 16, 13), error);
    EXPECT_THROW(plant_outliers(planted, 0, 1), error);
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
