// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/io/json.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/generate.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save.hpp"
#include "detent/nn/softmax.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "io/temporary_directory.hpp"
#include "model/family_fixtures.hpp"

namespace detent {
namespace {

constexpr index_t windows = 4;
constexpr index_t length = 64;

class decoder_family_fixture : public testing::TestWithParam<test::family_fixture> {
protected:
    std::vector<nn::token_id> const tokens_ = test::family_tokens();
    decoder const model_ = load_decoder(GetParam().directory);
};
INSTANTIATE_TEST_SUITE_P(, decoder_family_fixture, testing::ValuesIn(test::family_fixtures("decoder")),
                         test::fixture_name);

TEST_P(decoder_family_fixture, computes_what_transformers_computes) {
    ASSERT_EQ(std::ssize(tokens_), windows * length);
    matrix const logits = model_.forward(tokens_, windows); // (token, vocabulary)
    double const perplexity = std::exp(nn::next_token_loss(logits, tokens_, windows) / (windows * (length - 1)));
    double const expected = GetParam().reference().at("perplexity").get<double>();
    EXPECT_NEAR(perplexity, expected, 1e-4 * expected);

    matrix const first = GetParam().floats("logits.f32", length);
    ASSERT_EQ(first.cols(), logits.cols());
    EXPECT_LE((logits.topRows(length) - first).cwiseAbs().maxCoeff(), 2e-4F * first.cwiseAbs().maxCoeff());
}

TEST_P(decoder_family_fixture, generates_with_a_cache_what_the_whole_sequence_says) {
    auto const first = std::span(tokens_).first(length);
    matrix const last = model_.forward(first).bottomRows(1); // a rotary law may depend on the length
    float const tolerance = 1e-4F * last.cwiseAbs().maxCoeff();
    kv_cache cache(model_.configuration, length);
    for (index_t t = 0; t < length; ++t) {
        matrix const logits = model_.forward(first.subspan(static_cast<std::size_t>(t), 1), cache);
        matrix const whole = model_.forward(first.first(static_cast<std::size_t>(t) + 1)).bottomRows(1);
        ASSERT_LE((logits - whole).cwiseAbs().maxCoeff(), tolerance) << t;
    }
}

TEST_P(decoder_family_fixture, generates_the_likeliest_tokens) {
    auto const prompt = std::span(tokens_).first(24);
    std::vector<nn::token_id> sequence(prompt.begin(), prompt.end());
    decoder endless = model_;
    endless.configuration.end_of_text.clear();
    for (nn::token_id const token : generate(endless, prompt, 16)) {
        index_t best = 0;
        endless.forward(sequence).bottomRows(1).row(0).maxCoeff(&best);
        ASSERT_EQ(token, best) << sequence.size();
        sequence.push_back(token);
    }
    EXPECT_EQ(sequence.size(), prompt.size() + 16);
}

/// Changes to a model, after which it is saved and loaded.
class saved_family_fixture : public decoder_family_fixture {
protected:
    template <class Change> void for_each_layer(Change const& change) {
        for (block& b : changed_.blocks) {
            for (auto const& group : b.groups()) {
                for (layer_place const place : group) {
                    change(b.linear(place), place);
                }
            }
        }
    }

    static void round(linear_layer& layer) {
        layer.weight = quantizer<int_grid<4>, per_group<32>>{}(std::get<matrix>(layer.weight)).packed();
    }

    decoder saved_and_loaded(io::packed_layout layout) {
        auto const plan = save_decoder(changed_, GetParam().directory, directory_ / "out", "a test");
        EXPECT_EQ(plan.layout, layout) << plan.obstacle;
        return load_decoder(directory_ / "out");
    }

    bool has_fused_layers() const {
        return std::ranges::any_of(tensors_of(model_).layers,
                                   [](auto const& layer) { return layer.of->stored.has_value(); });
    }

    matrix logits(decoder const& model) const { return model.forward(std::span(tokens_).first(2 * length), 2); }

    temporary_directory directory_;
    decoder changed_ = model_;
};
INSTANTIATE_TEST_SUITE_P(, saved_family_fixture, testing::ValuesIn(test::family_fixtures("decoder")),
                         test::fixture_name);

TEST_P(saved_family_fixture, is_copied_where_nothing_has_changed) {
    auto const loaded = saved_and_loaded(io::packed_layout::gptq);
    EXPECT_TRUE(logits(loaded) == logits(model_));
    EXPECT_EQ(io::read_json(directory_ / "out" / "config.json"), io::read_json(GetParam().directory / "config.json"));
    io::checkpoint const before(GetParam().directory), after(directory_ / "out");
    EXPECT_EQ(after.names(), before.names());
    for (auto const& name : before.names()) {
        EXPECT_EQ(after.at(name).type, before.at(name).type) << name;
        EXPECT_EQ(after.at(name).shape, before.at(name).shape) << name;
        EXPECT_TRUE(std::ranges::equal(after.at(name).bytes, before.at(name).bytes)) << name;
    }
}

TEST_P(saved_family_fixture, comes_back_with_other_float_numbers) {
    float factor = 1;
    for_each_layer([&](linear_layer& layer, layer_place) {
        std::get<matrix>(layer.weight) *= factor += 0.01F;
        layer.bias *= factor;
    });
    for (block& b : changed_.blocks) {
        for (auto* norms : {&b.attention_norms, &b.mlp_norms}) {
            for (auto* norm : {&norms->input, &norms->output, &norms->sum}) {
                if (*norm) {
                    (*norm)->weight.array() *= 1.25F; // exactly, where 1 is added too
                }
            }
        }
    }
    auto const loaded = saved_and_loaded(io::packed_layout::gptq);
    EXPECT_FALSE(logits(changed_) == logits(model_));
    EXPECT_TRUE(logits(loaded) == logits(changed_));
    io::checkpoint const before(GetParam().directory), after(directory_ / "out");
    EXPECT_EQ(after.names(), before.names());
    for (auto const& name : before.names()) {
        EXPECT_EQ(after.at(name).shape, before.at(name).shape) << name;
    }
}

TEST_P(saved_family_fixture, comes_back_packed) {
    for_each_layer([](linear_layer& layer, layer_place) { round(layer); });
    auto const loaded = saved_and_loaded(has_fused_layers() ? io::packed_layout::detent : io::packed_layout::gptq);
    EXPECT_EQ(packed_layers(loaded).size(), packed_layers(changed_).size());
    EXPECT_FALSE(logits(changed_) == logits(model_));
    EXPECT_TRUE(logits(loaded) == logits(changed_));
}

TEST_P(saved_family_fixture, comes_back_with_some_layers_packed) {
    for_each_layer([](linear_layer& layer, layer_place place) {
        using enum linear_role;
        if (place.role == key || place.role == up || (place.role == down && place.expert == 1)) {
            round(layer);
        }
    });
    auto const loaded = saved_and_loaded(has_fused_layers() ? io::packed_layout::detent : io::packed_layout::gptq);
    EXPECT_EQ(packed_layers(loaded).size(), packed_layers(changed_).size());
    EXPECT_TRUE(logits(loaded) == logits(changed_));
}

TEST_P(saved_family_fixture, comes_back_with_biases_that_its_configuration_does_not_know) {
    float number = 0;
    for_each_layer([&](linear_layer& layer, layer_place) {
        if (layer.bias.size() == 0) {
            layer.bias = float_vector::Constant(layer.shape().rows, number += 0.01F);
        }
    });
    auto const loaded = saved_and_loaded(number > 0 ? io::packed_layout::detent : io::packed_layout::gptq);
    EXPECT_EQ(logits(changed_) == logits(model_), number == 0);
    EXPECT_TRUE(logits(loaded) == logits(changed_));
}

} // namespace
} // namespace detent
