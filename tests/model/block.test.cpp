// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/kv_cache.hpp"
#include "model/random_decoder.hpp"

namespace detent {
namespace {

using role = linear_role;

class block_form : public testing::TestWithParam<test::decoder_form> {
protected:
    decoder const model_ = test::random_decoder(GetParam().configuration);
};
INSTANTIATE_TEST_SUITE_P(, block_form, testing::ValuesIn(test::decoder_forms()),
                         [](auto const& form) { return form.param.name; });

TEST_P(block_form, has_every_layer_once) {
    for (block const& b : model_.blocks) {
        auto const& c = GetParam().configuration;
        index_t const networks = c.experts ? c.experts->count + (c.experts->shared_intermediate > 0 ? 1 : 0) : 1;
        ASSERT_EQ(std::ssize(b.mlps), networks);
        EXPECT_EQ(b.experts(), c.experts ? c.experts->count : 0);
        EXPECT_EQ(b.shares_norm(), c.parallel && c.shared_norm);
        auto places = b.places();
        std::set<std::string> names;
        for (layer_place const place : places) {
            names.insert(b.linear(place).name);
        }
        EXPECT_EQ(names.size(), places.size());
        std::size_t const gates = c.gated ? 1 : 0;
        std::size_t const extra = (b.router ? 1U : 0U) + (b.shared_gate ? 1U : 0U);
        EXPECT_EQ(places.size(), 4 + static_cast<std::size_t>(networks) * (2 + gates) + extra);

        std::vector<layer_place> quantized;
        for (auto const& group : b.groups()) {
            for (layer_place const place : group) {
                EXPECT_EQ(b.linear(place).shape().cols, b.linear(group.front()).shape().cols);
                EXPECT_EQ(place.expert, group.front().expert);
                quantized.push_back(place);
            }
        }
        std::erase_if(places, [](layer_place p) { return p.role == role::router || p.role == role::shared_gate; });
        EXPECT_EQ(quantized, places);
    }
}

TEST_P(block_form, forward_is_its_steps) {
    nn::token_rows const rows{.sequences = 2};
    matrix const x = model_.embed(test::some_tokens(16), rows);
    for (block const& b : model_.blocks) {
        block_tape<float> tape;
        enter_attention(b, matrix_view(x), tape);
        attend(b, rows, tape);
        leave_attention(b, matrix_view(x), tape);
        enter_mlp(b, matrix_view(x), tape);
        for (std::size_t e = 0; e < b.mlps.size(); ++e) {
            run_hidden(b, e, tape);
        }
        EXPECT_EQ(forward(b, x, rows), leave_mlp(b, tape));
    }
}

TEST_P(block_form, a_cache_changes_nothing) {
    auto const tokens = test::some_tokens(30);
    matrix const whole = model_.forward(tokens);
    kv_cache cache(model_.configuration, 30);
    std::span<nn::token_id const> const all(tokens);
    for (auto const& [begin, count] :
         {std::pair<std::size_t, std::size_t>{0, 11}, {11, 1}, {12, 1}, {13, 16}, {29, 1}}) {
        matrix const logits = model_.forward(all.subspan(begin, count), cache);
        EXPECT_LE((logits - whole.row(cache.size() - 1)).cwiseAbs().maxCoeff(), 1e-4F * whole.cwiseAbs().maxCoeff());
    }
}

TEST_P(block_form, later_tokens_change_nothing_before_them) {
    auto tokens = test::some_tokens(20);
    matrix const before = model_.forward(tokens);
    tokens[12] = (tokens[12] + 1) % 19;
    matrix const after = model_.forward(tokens);
    EXPECT_LE((before.topRows(12) - after.topRows(12)).cwiseAbs().maxCoeff(), 1e-5F * before.cwiseAbs().maxCoeff());
    EXPECT_NE(before.row(12), after.row(12));
}

TEST_P(block_form, threads_do_not_change_a_bit) {
    thread_team one(1), three(3);
    auto const tokens = test::some_tokens(40 * 5);
    EXPECT_EQ(model_.forward(tokens, 5, one), model_.forward(tokens, 5, three));
}

TEST(layer_place, is_ordered_by_role_and_expert) {
    EXPECT_LT((layer_place{role::gate, 7}), (layer_place{role::up, 0}));
    EXPECT_LT((layer_place{role::up, 0}), (layer_place{role::up, 1}));
    EXPECT_EQ(layer_place{role::head}, (layer_place{role::head, 0}));
}

} // namespace
} // namespace detent
