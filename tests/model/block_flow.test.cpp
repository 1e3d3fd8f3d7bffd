// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <map>
#include <optional>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/model/block_backward.hpp"
#include "detent/model/block_flow.hpp"
#include "model/block_cases.hpp"
#include "model/reference_block.hpp"
#include "nn/finite_differences.hpp"

namespace detent {
namespace {

using test::matrix64;
using test::vector64;

constexpr nn::token_rows two_sequences{.sequences = 2};

matrix64 run(dense_block<double> const& b, matrix64 const& x) {
    block_tape<double> tape;
    return forward(b, x, two_sequences, tape);
}

matrix64 some_states(dense_block<double> const& b) { return test::random_matrix64(2 * 5, b.query.weight.cols(), 50); }

void expect_reference(dense_block<double> const& b) {
    matrix64 const x = some_states(b), expected = test::reference_block().run(b, x, 2);
    EXPECT_LE((run(b, x) - expected).norm(), 1e-12 * expected.norm());
}

/// Compares the gradients of inputs, weights, biases and norms with differences, each in about `entries` places.
void expect_gradients(dense_block<double> b, index_t entries) {
    matrix64 x = some_states(b), made = run(b, x);
    matrix64 const g = test::random_matrix64(x.rows(), x.cols(), 51);
    std::map<layer_place, dense_linear<double>> slopes;
    auto const take = [&](layer_place place, basic_matrix_view<double> input, basic_matrix_view<double> slope) {
        EXPECT_TRUE(
            slopes.emplace(place, dense_linear<double>{slope.transpose() * input, slope.colwise().sum()}).second);
    };
    norm_gradients<double> norms;
    if (b.attention_norms.input) {
        norms.attention = b.attention_norms.input->zeros();
    }
    if (b.mlp_norms.input) {
        norms.mlp = b.mlp_norms.input->zeros();
    }
    block_tape<double> tape;
    record(b, x, two_sequences, tape);
    matrix64 const to_x = backward(b, x, two_sequences, tape, g, take, &norms);
    EXPECT_EQ(slopes.size(), b.places().size());

    auto const loss = [&] { return test::weighted_sum(run(b, x) - made, g); };
    auto const rule = test::difference_rule::of(b);
    auto const compare = [&](auto const& found, auto& at, char const* what) {
        SCOPED_TRACE(what);
        test::expect_gradient(found, at, loss, 1 + at.size() / entries, rule.tolerance, rule.step);
    };
    compare(to_x, x, "x");
    for (layer_place const place : b.places()) {
        SCOPED_TRACE("role " + std::to_string(static_cast<int>(place.role)) + " of network " +
                     std::to_string(place.expert));
        auto& layer = b.linear(place);
        auto const& slope = slopes.at(place);
        if (slope.weight.isZero(0)) { // an expert no token was sent to
            EXPECT_LT(place.expert, b.experts());
            continue;
        }
        compare(slope.weight, layer.weight, "weight");
        // Without positions a bias of keys adds the same to all scores.
        if (layer.bias.size() > 0 && (place.role != linear_role::key || b.rotary)) {
            compare(slope.bias, layer.bias, "bias");
        }
    }
    for (auto* const both : {&b.attention_norms, &b.mlp_norms}) {
        auto const& found = both == &b.mlp_norms ? norms.mlp : norms.attention;
        if (both->input) {
            compare(found->weight, both->input->weight, "weights of a norm");
            if (both->input->bias.size() > 0) {
                compare(found->bias, both->input->bias, "biases of a norm");
            }
        }
    }
}

class small_block : public testing::TestWithParam<test::block_case> {};
INSTANTIATE_TEST_SUITE_P(, small_block, testing::ValuesIn(test::small_blocks()), test::case_name);

TEST_P(small_block, computes_what_the_reference_does) { expect_reference(GetParam().make()); }

TEST_P(small_block, gradients_are_those_of_differences) { expect_gradients(GetParam().make(), 12); }

class family_block : public testing::TestWithParam<test::block_case> {};
INSTANTIATE_TEST_SUITE_P(, family_block, testing::ValuesIn(test::family_blocks()), test::case_name);

TEST_P(family_block, computes_what_the_reference_does) { expect_reference(GetParam().make()); }

TEST_P(family_block, gradients_are_those_of_differences) { expect_gradients(GetParam().make(), 3); }

TEST(block_flow, a_tape_that_keeps_nothing_changes_no_bit) {
    for (auto const& form : test::decoder_forms()) {
        SCOPED_TRACE(form.name);
        block const b = test::random_decoder(form.configuration).blocks.front();
        matrix const x = test::random_matrix(2 * 9, 12, 1);
        block_tape<float> tape;
        EXPECT_EQ(forward(b, x, two_sequences), forward(b, x, two_sequences, tape));
        EXPECT_GT(tape.mlps.front().up.size(), 0);
        block_tape<float> small;
        small.keeps = false;
        forward(b, x, two_sequences, small);
        EXPECT_EQ(small.attention_input.raw.size() + small.q.raw.size() + small.mlp_input.raw.size() +
                      small.mlps.front().up.size() + small.mlps.front().hidden.raw.size(),
                  0);
    }
}

TEST(block_flow, gives_the_same_bits_for_any_number_of_threads) {
    thread_team three(3);
    for (auto const& form : test::decoder_forms()) {
        block const b = test::random_decoder(form.configuration).blocks.front();
        matrix const x = test::random_matrix(2 * 40, 12, 1), g = test::random_matrix(2 * 40, 12, 2);
        auto const back = [&](executor_ref executor) {
            block_tape<float> tape;
            record(b, x, two_sequences, tape, executor);
            return backward(
                b, x, two_sequences, tape, g, [](auto&&...) {}, nullptr, executor);
        };
        EXPECT_EQ(back(three), back({})) << form.name;
        EXPECT_EQ(forward(b, x, two_sequences, three), forward(b, x, two_sequences)) << form.name;
    }
}

} // namespace
} // namespace detent
