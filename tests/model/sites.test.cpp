// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/sites.hpp"
#include "random_decoder.hpp"

namespace detent {
namespace {

using role = linear_role;

block block_of(std::string const& name) {
    for (auto const& form : test::decoder_forms()) {
        if (form.name == name) {
            return test::random_decoder(form.configuration).blocks[1];
        }
    }
    ADD_FAILURE() << name;
    return {};
}

TEST(sites, are_read_by_the_layers_of_a_gated_block) {
    block const b = block_of("gated");
    EXPECT_EQ(readers_of(b, site::attention_input),
              (std::vector<layer_place>{{role::query}, {role::key}, {role::value}}));
    EXPECT_EQ(readers_of(b, site::context), (std::vector<layer_place>{{role::output}}));
    EXPECT_EQ(readers_of(b, site::mlp_input), (std::vector<layer_place>{{role::gate}, {role::up}}));
    EXPECT_EQ(readers_of(b, site::hidden), (std::vector<layer_place>{{role::down}}));
}

TEST(sites, are_read_by_all_experts_their_router_and_the_gate_of_the_shared_one) {
    block const b = block_of("experts_sigmoid_and_shared");
    EXPECT_EQ(readers_of(b, site::mlp_input), (std::vector<layer_place>{{role::gate, 0},
                                                                        {role::up, 0},
                                                                        {role::gate, 1},
                                                                        {role::up, 1},
                                                                        {role::gate, 2},
                                                                        {role::up, 2},
                                                                        {role::gate, 3},
                                                                        {role::up, 3},
                                                                        {role::router},
                                                                        {role::shared_gate}}));
    EXPECT_EQ(readers_of(b, site::hidden, 2), (std::vector<layer_place>{{role::down, 2}}));
    EXPECT_EQ(channels_of(b, site::hidden, 2), 10);
    EXPECT_EQ(channels_of(b, site::hidden, 3), 9); // the shared one
}

TEST(sites, of_attention_is_read_by_the_network_too_where_they_share_a_norm) {
    block const b = block_of("parallel_shared_norm");
    EXPECT_EQ(readers_of(b, site::attention_input),
              (std::vector<layer_place>{{role::query}, {role::key}, {role::value}, {role::gate}, {role::up}}));
    EXPECT_TRUE(readers_of(b, site::mlp_input).empty());
    EXPECT_FALSE(can_shift(b, site::mlp_input));
}

TEST(sites, are_each_read_by_what_reads_so_many_channels) {
    for (auto const& form : test::decoder_forms()) {
        block const b = test::random_decoder(form.configuration).blocks[1];
        std::set<layer_place> seen;
        for (index_t e = 0; e < std::ssize(b.mlps); ++e) {
            for (site const at : all_sites) {
                for (layer_place const place : readers_of(b, at, e)) {
                    EXPECT_EQ(b.linear(place).shape().cols, channels_of(b, at, e)) << form.name;
                    EXPECT_EQ(site_read_by(b, place.role), at) << form.name;
                    seen.insert(place);
                }
            }
        }
        EXPECT_EQ(seen.size(), b.places().size()) << form.name;
    }
}

TEST(sites, can_be_shifted_where_a_norm_has_a_bias_and_probabilities_add_up_to_1) {
    EXPECT_TRUE(can_shift(block_of("plain"), site::attention_input));
    EXPECT_TRUE(can_shift(block_of("plain"), site::mlp_input));
    EXPECT_FALSE(can_shift(block_of("gated"), site::attention_input));
    EXPECT_FALSE(can_shift(block_of("norms_of_sums"), site::attention_input));
    EXPECT_TRUE(can_shift(block_of("gated"), site::context));
    EXPECT_FALSE(can_shift(block_of("sinks"), site::context));
    EXPECT_FALSE(can_shift(block_of("plain"), site::hidden));
}

TEST(key_scales, are_one_for_each_pair_that_is_rotated_together) {
    EXPECT_EQ(key_scales(block_of("gated")), 2 * 3);          // two heads of 6
    EXPECT_EQ(key_scales(block_of("plain")), 3 * 4);          // three heads of 4, not rotated
    EXPECT_EQ(key_scales(block_of("partial_rotary")), 2 * 4); // 4 of 6
    EXPECT_EQ(key_scales(block_of("query_key_norms")), 0);
    auto const indices = [](std::string const& form) {
        block const b = block_of(form);
        std::vector<index_t> all;
        for (index_t c = 0; c < b.heads.kv_heads * b.heads.head_dim; ++c) {
            all.push_back(key_index(b, c));
        }
        return all;
    };
    EXPECT_EQ(indices("gated"), (std::vector<index_t>{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5}));
    EXPECT_EQ(indices("partial_rotary"), (std::vector<index_t>{0, 1, 0, 1, 2, 3, 4, 5, 4, 5, 6, 7}));
    EXPECT_EQ(indices("interleaved_rotary"), (std::vector<index_t>{0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5}));
    EXPECT_EQ(indices("plain"), (std::vector<index_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
}

TEST(for_queries, repeats_what_query_heads_share_and_is_undone_by_sums) {
    nn::attention_heads const heads{.heads = 4, .kv_heads = 2, .head_dim = 2};
    float_vector channels(4);
    channels << 1, 2, 3, 4;
    float_vector all(8);
    all << 1, 2, 1, 2, 3, 4, 3, 4;
    EXPECT_EQ(for_queries(channels, heads), all);
    EXPECT_EQ(sum_over_queries(all, heads), 2 * channels);
    EXPECT_EQ(for_queries(float_vector{}, heads).size(), 0);
    EXPECT_EQ(sum_over_queries(float_vector{}, heads).size(), 0);
}

} // namespace
} // namespace detent
