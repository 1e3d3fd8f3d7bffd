// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/model/decoder.hpp"

#include <gtest/gtest.h>

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
    auto const& b = model_.blocks[1];
    matrix const middle = x + b.output.forward(b.attention_context(b.attention_input(x), rows));
    matrix const expected = middle + b.down.forward(b.mlp_hidden(b.mlp_input(middle)));
    EXPECT_EQ(b.forward(x, rows), expected);
}

TEST_P(decoder_of, groups_hold_every_layer_once_with_the_width_of_their_input) {
    auto const& b = model_.blocks[0];
    std::vector<std::string> names;
    for (auto const& group : b.groups()) {
        for (auto const role : group) {
            names.push_back(b.linear(role).name);
            EXPECT_EQ(b.linear(role).shape().cols, b.linear(group.front()).shape().cols);
        }
    }
    bool const llama = model_.configuration.family == model_family::llama;
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

#if defined(_OPENMP)
TEST_P(decoder_of, threads_do_not_change_a_bit) {
    thread_team one(1), three(3);
    auto const tokens = test::some_tokens(40 * 9);
    EXPECT_EQ(model_.forward(tokens, 9, one), model_.forward(tokens, 9, three));
}
#endif

INSTANTIATE_TEST_SUITE_P(families, decoder_of, testing::Values(test::llama_json(), test::opt_json()),
                         [](auto const& family) { return family.param.at("model_type").template get<std::string>(); });

} // namespace detent
