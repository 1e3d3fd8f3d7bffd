// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/decoder.hpp"
#include "random_decoder.hpp"

namespace detent {

namespace {

class decoder_of : public testing::TestWithParam<nlohmann::json> {
protected:
    decoder const model_ = test::random_decoder(GetParam());
};

} // namespace

TEST_P(decoder_of, matches_the_scalar_reference) {
    test::random_weights source;
    auto const configuration = parse_configuration(GetParam(), "config.json");
    auto const model = assemble_decoder(configuration, "model.", source);
    test::reference_decoder const reference(configuration, "model.", source.tensors);

    index_t const length = 17;
    auto const tokens = test::some_tokens(2 * length);
    matrix const logits = model.forward(tokens, 2);
    ASSERT_EQ(shape_of(logits), (extents{2 * length, configuration.vocabulary}));
    for (index_t s = 0; s < 2; ++s) {
        auto const expected = reference.logits({tokens.begin() + s * length, tokens.begin() + (s + 1) * length});
        for (index_t t = 0; t < length; ++t) {
            for (index_t id = 0; id < configuration.vocabulary; ++id) {
                double const e = expected[static_cast<std::size_t>(t)][static_cast<std::size_t>(id)];
                ASSERT_NEAR(logits(s * length + t, id), e, 5e-5 * (1 + std::abs(e))) << t << ' ' << id;
            }
        }
    }
}

TEST_P(decoder_of, cached_logits_equal_those_of_the_whole_sequence) {
    auto const tokens = test::some_tokens(30);
    matrix const whole = model_.forward(tokens);
    kv_cache cache(model_.configuration, 30);
    std::span<nn::token_id const> const all(tokens);
    for (auto const& [begin, count] :
         {std::pair<std::size_t, std::size_t>{0, 11}, {11, 1}, {12, 1}, {13, 16}, {29, 1}}) {
        matrix const logits = model_.forward(all.subspan(begin, count), cache);
        EXPECT_EQ(cache.size(), static_cast<index_t>(begin + count));
        EXPECT_LE((logits - whole.row(cache.size() - 1)).cwiseAbs().maxCoeff(), 5e-5F);
    }
    cache.truncate(20);
    matrix const again = model_.forward(all.subspan(20, 4), cache);
    EXPECT_LE((again - whole.row(23)).cwiseAbs().maxCoeff(), 5e-5F);
}

TEST_P(decoder_of, later_tokens_do_not_change_earlier_logits) {
    auto tokens = test::some_tokens(20);
    matrix const before = model_.forward(tokens);
    tokens[12] = (tokens[12] + 1) % 19;
    matrix const after = model_.forward(tokens);
    EXPECT_EQ(before.topRows(12), after.topRows(12));
    EXPECT_NE(before.row(12), after.row(12));
    EXPECT_NE(before.row(19), after.row(19));
}

TEST_P(decoder_of, steps_of_a_block_compose_to_its_forward) {
    nn::token_rows const rows{.sequences = 2};
    matrix const x = model_.embed(test::some_tokens(16), rows);
    block const& b = model_.blocks[1];
    block_tape<float> tape;
    enter_attention(b, matrix_view(x), tape);
    attend(b, rows, tape);
    matrix const middle = x + b.output.forward(tape.context.read());
    leave_attention(b, matrix_view(x), tape);
    EXPECT_EQ(tape.middle, middle);
    enter_mlp(b, matrix_view(x), tape);
    run_hidden(b, 0, tape);
    matrix const expected = middle + b.mlps.front().down.forward(tape.mlps.front().hidden.read());
    EXPECT_EQ(leave_mlp(b, tape), expected);
    EXPECT_EQ(forward(b, x, rows), expected);
}

TEST_P(decoder_of, groups_hold_every_layer_once_with_the_width_of_their_input) {
    auto const& b = model_.blocks[0];
    std::vector<std::string> names;
    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            names.push_back(b.linear(place).name);
            EXPECT_EQ(b.linear(place).shape().cols, b.linear(group.front()).shape().cols);
        }
    }
    bool const llama = model_.configuration.type == "llama";
    std::string const mlp = llama ? "layers.0.mlp." : "layers.0.";
    std::vector<std::string> expected{"layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj",
                                      "layers.0.self_attn.v_proj",
                                      llama ? "layers.0.self_attn.o_proj" : "layers.0.self_attn.out_proj"};
    for (auto const* name : llama ? std::vector{"gate_proj", "up_proj", "down_proj"} : std::vector{"fc1", "fc2"}) {
        expected.push_back(mlp + name);
    }
    EXPECT_EQ(names, expected);
}

TEST_P(decoder_of, wrong_tokens_are_errors) {
    auto const message = [&](auto const& f) -> std::string {
        try {
            f();
        } catch (error const& e) {
            return e.what();
        }
        return "";
    };
    std::vector<nn::token_id> tokens{1, 19, 2};
    EXPECT_EQ(message([&] { model_.forward(tokens); }), "token 1: has id 19, outside the vocabulary of 19");
    tokens[1] = -1;
    EXPECT_EQ(message([&] { model_.forward(tokens); }), "token 1: has id -1, outside the vocabulary of 19");
    EXPECT_EQ(message([&] { model_.forward(test::some_tokens(41)); }),
              "sequence of 41 tokens: is longer than the 40 the model can take");
    EXPECT_EQ(message([&] { model_.forward(test::some_tokens(40)); }), "");
    kv_cache cache(model_.configuration, 5);
    EXPECT_EQ(message([&] { model_.forward(test::some_tokens(6), cache); }),
              "sequence of 6 tokens: is longer than the 5 the cache has room for");
    EXPECT_EQ(cache.size(), 0);
}

/// Laws whose frequencies change when a sequence has more than 12 tokens: once, or with every one more.
class decoder_with_rotary_law : public testing::TestWithParam<nn::rotary_law> {
protected:
    decoder_with_rotary_law() {
        auto c = parse_configuration(test::llama_json(), "config.json");
        for (auto& layer : c.layers) {
            layer.rotary = GetParam();
        }
        c.layers.front().window = 4; // which has moved on when all is computed again
        model_ = test::random_decoder(c);
    }

    matrix whole(index_t count) const {
        return model_.forward(std::span(tokens_).first(static_cast<std::size_t>(count))).bottomRows(1);
    }

    std::vector<nn::token_id> const tokens_ = test::some_tokens(30);
    decoder model_;
};
INSTANTIATE_TEST_SUITE_P(, decoder_with_rotary_law,
                         testing::Values(nn::rotary_law{.kind = nn::rotary_kind::longrope,
                                                        .base = 100,
                                                        .dimensions = 6,
                                                        .max_positions = 40,
                                                        .original_positions = 12,
                                                        .short_factor = {1, 2, 1},
                                                        .long_factor = {4, 1, 3}},
                                         nn::rotary_law{.kind = nn::rotary_kind::dynamic,
                                                        .base = 100,
                                                        .dimensions = 6,
                                                        .factor = 4,
                                                        .max_positions = 12}));

TEST_P(decoder_with_rotary_law, generates_with_a_cache_what_the_whole_sequence_says) {
    kv_cache cache(model_.configuration, 30);
    std::span<nn::token_id const> const all(tokens_);
    for (auto const& [begin, count] :
         {std::pair<std::size_t, std::size_t>{0, 5}, {5, 1}, {6, 5}, {11, 1}, {12, 1}, {13, 1}, {14, 6}, {20, 1}}) {
        matrix const logits = model_.forward(all.subspan(begin, count), cache);
        ASSERT_EQ(cache.size(), static_cast<index_t>(begin + count));
        EXPECT_LE((logits - whole(cache.size())).cwiseAbs().maxCoeff(), 5e-5F) << begin;
    }
    EXPECT_TRUE(std::ranges::equal(cache.tokens(), all.first(21)));
    bool const every_length_differs = GetParam().kind == nn::rotary_kind::dynamic;
    float const difference = (whole(21) - model_.forward(all.first(22)).row(20)).cwiseAbs().maxCoeff();
    EXPECT_EQ(difference > 1e-4F, every_length_differs) << difference;
}

TEST_P(decoder_with_rotary_law, goes_back_to_a_shorter_sequence) {
    decoder model = model_;
    for (auto& layer : model.configuration.layers) {
        layer.window = 0;
    }
    for (block& b : model.blocks) {
        b.attention.window = 0;
    }
    kv_cache cache(model.configuration, 30);
    std::span<nn::token_id const> const all(tokens_);
    model.forward(all.first(20), cache);
    cache.truncate(8);
    EXPECT_EQ(cache.tokens().size(), 8U);
    matrix const logits = model.forward(all.subspan(8, 2), cache);
    EXPECT_LE((logits - model.forward(all.first(10)).bottomRows(1)).cwiseAbs().maxCoeff(), 5e-5F);
}

TEST_P(decoder_of, threads_do_not_change_a_bit) {
    thread_team one(1), three(3);
    auto const tokens = test::some_tokens(40 * 9);
    EXPECT_EQ(model_.forward(tokens, 9, one), model_.forward(tokens, 9, three));
}

INSTANTIATE_TEST_SUITE_P(families, decoder_of, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& family) { return family.param.at("model_type").template get<std::string>(); });

} // namespace detent
