// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include "detent/model/weak_plan.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "io/failure_message.hpp"
#include "model/random_decoder.hpp"

namespace {

using namespace detent;
using role = linear_role;

/// The plan for a block of llama_json() or opt_json(), codes of 3 bits.
weak_plan plan_of(nlohmann::json const& model, char const* text) {
    return plan_weak_columns(test::random_decoder(model).blocks.front(), spec::parse(text), 3);
}
weak_plan llama_plan(char const* text) { return plan_of(test::llama_json(), text); }
weak_plan opt_plan(char const* text) { return plan_of(test::opt_json(), text); }

weak_plan llama(index_t q, index_t k, index_t v, index_t o, index_t gate, index_t up, index_t down) {
    return {{{role::query}, q},   {{role::key}, k}, {{role::value}, v},  {{role::output}, o},
            {{role::gate}, gate}, {{role::up}, up}, {{role::down}, down}};
}
weak_plan opt(index_t q, index_t k, index_t v, index_t o, index_t up, index_t down) {
    return {{{role::query}, q},  {{role::key}, k}, {{role::value}, v},
            {{role::output}, o}, {{role::up}, up}, {{role::down}, down}};
}

TEST(weak_plan, roles_have_the_names_of_specifications) {
    for (auto const& [r, name] : {std::pair<role, std::string_view>{role::query, "q"},
                                  {role::key, "k"},
                                  {role::value, "v"},
                                  {role::output, "o"},
                                  {role::gate, "gate"},
                                  {role::up, "up"},
                                  {role::down, "down"}}) {
        EXPECT_EQ(name_of(r), name);
        EXPECT_EQ(spec::parse("int3:owq=2:in=" + std::string(name)).weak.layers.front(), name);
    }
}

TEST(weak_plan, without_owq_no_column_is_weak) {
    for (char const* const text : {"int3", "int3:gptq", "int3:truncated:qronos"}) {
        EXPECT_EQ(llama_plan(text), llama(0, 0, 0, 0, 0, 0, 0)) << text;
        EXPECT_EQ(opt_plan(text), opt(0, 0, 0, 0, 0, 0)) << text;
    }
}

TEST(weak_plan, a_number_of_columns_is_that_of_every_layer_named) {
    EXPECT_EQ(llama_plan("int3:owq=3"), llama(3, 3, 3, 3, 3, 3, 3));
    EXPECT_EQ(llama_plan("int3:owq=3:in=q+gate+down"), llama(3, 0, 0, 0, 3, 0, 3));
    EXPECT_EQ(llama_plan("int3:owq=3:in=down+k+k"), llama(0, 3, 0, 0, 0, 0, 3));
    EXPECT_EQ(opt_plan("int3:owq=3"), opt(3, 3, 3, 3, 3, 3));
    EXPECT_EQ(opt_plan("int3:owq=3:in=v+o+up"), opt(0, 0, 3, 3, 3, 0));
}

// Shapes (out, in) of LLaMA's block: q 24 x 12, k and v 12 x 12, o 12 x 24, gate and up 20 x 12, down 12 x 20, in all
// 1584 weights; of OPT's: q, k, v, o 12 x 12, up 20 x 12, down 12 x 20, in all 1056. The share of weak inputs is r in
// attention and a part of it elsewhere; numbers are rounded, then made even.
TEST(weak_plan, bits_on_average_are_shared_by_the_size_of_layers) {
    // r = 2/13 * 1584 / (864 + 0.375 * 720) = 0.215: 2.6 of 12, 5.2 of 24; 0.375 r: 0.97 of 12, 1.6 of 20
    EXPECT_EQ(llama_plan("int3:owq@5"), llama(4, 4, 4, 6, 2, 2, 2));
    // r = 3/13 * 1056 / (576 + 0.25 * 480) = 0.350: 4.2 of 12; 0.25 r: 1.05 of 12, 1.75 of 20
    EXPECT_EQ(opt_plan("int3:owq@6"), opt(4, 4, 4, 4, 2, 2));
    EXPECT_EQ(llama_plan("int3:owq@3"), llama(0, 0, 0, 0, 0, 0, 0));
}

TEST(weak_plan, layers_that_share_make_up_for_those_that_do_not) {
    // r = 2/13 * 1584 / 288 = 0.846: 10.2 of 12
    EXPECT_EQ(llama_plan("int3:owq@5:in=q"), llama(10, 0, 0, 0, 0, 0, 0));
    // r = 1/13 * 1584 / (144 + 144 + 0.375 * 240) = 0.322: 3.9 of 12; 0.375 r: 2.4 of 20
    EXPECT_EQ(llama_plan("int3:owq@4:in=k+v+down"), llama(0, 4, 4, 0, 0, 0, 2));
    // The ratio does not matter where only one layer shares: 0.25 r = 1/13 * 1056 / 240 = 0.338: 6.8 of 20
    EXPECT_EQ(opt_plan("int3:owq@4:in=down"), opt(0, 0, 0, 0, 0, 8));
}

TEST(weak_plan, the_published_rule_takes_every_block_for_opts) {
    // r = 3/13 * 12 / 6 = 0.462: 5.5 of 12; 0.25 r: 1.4 of 12, 2.3 of 20
    EXPECT_EQ(opt_plan("int3:owq@6:published"), opt(6, 6, 6, 6, 2, 2));
    // r = 3/13 * 12 / 7 = 0.396: 4.7 of 12, 9.5 of 24; 0.375 r: 1.8 of 12, 3.0 of 20
    EXPECT_EQ(llama_plan("int3:owq@6:published"), llama(6, 6, 6, 10, 2, 2, 4));
    // r = 1/13 * 12 / 2 = 0.462
    EXPECT_EQ(opt_plan("int3:owq@4:published:in=q+k"), opt(6, 6, 0, 0, 0, 0));
}

// Shapes as LLaMA's, but for three experts with gate and up 10 x 12, down 12 x 10, and one of 9 for all tokens: in
// attention 864 weights, in all 864 + 3 * 360 + 324 = 2268.
TEST(weak_plan, experts_are_layers_like_others) {
    auto const forms = test::decoder_forms();
    auto const form = std::ranges::find(forms, std::string("experts_sigmoid_and_shared"), &test::decoder_form::name);
    ASSERT_NE(form, forms.end());
    auto const plan_of = [&](char const* text) {
        return plan_weak_columns(test::random_decoder(form->configuration).blocks.front(), spec::parse(text), 3);
    };
    auto const attention = [](index_t n, index_t o) {
        return weak_plan{{{role::query}, n}, {{role::key}, n}, {{role::value}, n}, {{role::output}, o}};
    };
    weak_plan each = attention(0, 0), average = attention(4, 6);
    for (index_t e = 0; e < 4; ++e) {
        each[{role::gate, e}] = each[{role::up, e}] = 0;
        each[{role::down, e}] = 3;
        // r = 2/13 * 2268 / (864 + 0.375 * 1404) = 0.251: 3.0 of 12, 6.02 of 24; 0.375 r: 1.1 of 12, 0.9 of 10 and of 9
        average[{role::gate, e}] = average[{role::up, e}] = 2;
        average[{role::down, e}] = 2;
    }
    EXPECT_EQ(plan_of("int3:owq=3:in=down"), each);
    EXPECT_EQ(plan_of("int3:owq@5"), average);
    EXPECT_EQ(with_plan(spec::parse("int3:owq=3:in=down"), each, {role::down, 2}).weak.columns, 3);
    EXPECT_EQ(with_plan(spec::parse("int3:owq=3:in=down"), each, {role::up, 2}).weak.columns, 0);
    EXPECT_EQ(with_plan(spec::parse("int3:owq=3:in=down"), each, {role::head}).weak.columns, 0);
}

TEST(weak_plan, complains_of_what_is_not_there) {
    EXPECT_EQ(failure_message([] { opt_plan("int3:owq=12"); }),
              "specification 'int3:owq=12': 12 weak columns of the 12 inputs of 'q' leave none to quantize");
    EXPECT_EQ(failure_message([] { opt_plan("int3:owq=2:in=q+gate"); }),
              "specification 'int3:owq=2:in=q+gate': asks for weak columns in 'gate', which this model's blocks do not "
              "have");
    EXPECT_TRUE(failure_message([] { llama_plan("int3:owq@2.5"); }).starts_with("weak columns: cannot make 2.5"));
    // r = 9/13 * 1584 / 288 = 3.8
    EXPECT_TRUE(contains(failure_message([] { llama_plan("int3:owq@12:in=q"); }), "inputs weak"));
}

TEST(weak_plan, a_layers_specification_has_the_number_of_the_plan) {
    spec const s = spec::parse("int3:owq@5:in=o+up:by=activation");
    weak_plan const plan{{{role::output}, 6}, {{role::up}, 2}, {{role::down}, 0}};
    for (auto const& [place, columns] : plan) {
        spec const layer = with_plan(s, plan, place);
        EXPECT_EQ(layer.weak.columns, columns);
        EXPECT_EQ(layer.weak.bits, 0);
        EXPECT_TRUE(layer.weak.wanted); // the default range is that of the others
        EXPECT_EQ(layer.weak.chosen_by, sensitivity::activation);
        EXPECT_EQ(layer.text, s.text);
    }
}

} // namespace
