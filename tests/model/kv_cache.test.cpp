// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/core/eigen.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/tokens.hpp"

namespace detent {
namespace {

TEST(kv_cache, has_a_layer_for_each_block_with_its_window) {
    model_configuration c;
    c.heads = {.heads = 4, .kv_heads = 2, .head_dim = 3};
    c.layers.resize(3);
    c.layers[1].window = 5;
    kv_cache cache(c, 20);
    EXPECT_EQ(cache.capacity(), 20);
    EXPECT_EQ(cache.size(), 0);
    for (index_t i = 0; i < 3; ++i) {
        EXPECT_EQ(cache.layer(i).keys().heads(), 2);
        EXPECT_EQ(cache.layer(i).keys().head_dim(), 3);
        EXPECT_EQ(cache.layer(i).keys().window(), i == 1 ? 5 : 0);
    }
}

TEST(kv_cache, remembers_tokens_as_long_as_their_keys) {
    model_configuration c;
    c.heads = {.heads = 1, .kv_heads = 1, .head_dim = 2};
    c.layers.resize(2);
    kv_cache cache(c, 10);
    auto const see = [&](std::vector<nn::token_id> const& tokens) {
        matrix const x = matrix::Constant(static_cast<index_t>(tokens.size()), 2, 0.5F);
        cache.layer(0).append(x, x);
        cache.layer(1).append(x, x);
        cache.note(tokens);
    };
    see({7, 8, 9});
    see({3});
    EXPECT_EQ(cache.size(), 4);
    EXPECT_EQ(cache.tokens(), (std::vector<nn::token_id>{7, 8, 9, 3}));
    EXPECT_EQ(cache.rotated_length(), 4);
    cache.truncate(2);
    EXPECT_EQ(cache.size(), 2);
    EXPECT_EQ(cache.layer(1).size(), 2);
    EXPECT_EQ(cache.tokens(), (std::vector<nn::token_id>{7, 8}));
    EXPECT_EQ(cache.rotated_length(), 4); // the keys that are left are still those of the longer sequence
    see({1});
    EXPECT_EQ(cache.tokens(), (std::vector<nn::token_id>{7, 8, 1}));
    EXPECT_EQ(cache.rotated_length(), 3);
    cache.truncate(0);
    EXPECT_TRUE(cache.tokens().empty());
    EXPECT_EQ(cache.size(), 0);
}

} // namespace
} // namespace detent
