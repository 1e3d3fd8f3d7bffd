// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/model/gguf_architecture.hpp"
#include "io/failure_message.hpp"
#include "model/random_decoder.hpp"

namespace detent {
namespace {

TEST(gguf_architecture, rows_of_a_head_are_in_the_order_of_neighbours) {
    EXPECT_EQ(rotary_rows(1, 6, 6), (std::vector<index_t>{0, 3, 1, 4, 2, 5}));
    EXPECT_EQ(rotary_rows(2, 4, 2), (std::vector<index_t>{0, 1, 2, 3, 4, 5, 6, 7}));
    EXPECT_EQ(rotary_rows(2, 5, 4), (std::vector<index_t>{0, 2, 1, 3, 4, 5, 7, 6, 8, 9}));
}

TEST(gguf_architecture, layers_have_places) {
    auto const c = parse_configuration(test::llama_json(), "config.json");
    auto const places = gguf_places(c, "model.", *find_gguf_architecture("llama"));
    EXPECT_EQ(places.at("model.layers.1.mlp.down_proj").tensor, "blk.1.ffn_down");
    EXPECT_TRUE(places.at("model.layers.0.self_attn.k_proj").turned);
    EXPECT_FALSE(places.at("model.layers.0.self_attn.v_proj").turned);
    EXPECT_EQ(places.at("lm_head").tensor, "output");
    auto const joined = gguf_places(c, "model.", *find_gguf_architecture("phi3"));
    EXPECT_EQ(joined.at("model.layers.0.self_attn.v_proj").tensor, "blk.0.attn_qkv");
    EXPECT_EQ(joined.at("model.layers.0.self_attn.v_proj").first, 4 * 6 + 2 * 6);
    EXPECT_EQ(joined.at("model.layers.0.mlp.up_proj").first, 20);
}

TEST(gguf_architecture, experts_tell_mixtral_from_llama) {
    io::gguf_metadata metadata("file");
    metadata.add("general.architecture", std::string("llama"));
    EXPECT_EQ(gguf_architecture_of(metadata).type, "llama");
    metadata.add("llama.expert_count", std::uint32_t{8});
    EXPECT_EQ(gguf_architecture_of(metadata).type, "mixtral");
    EXPECT_EQ(find_gguf_architecture("opt"), nullptr);
}

} // namespace
} // namespace detent
