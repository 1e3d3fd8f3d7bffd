// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/model/tensor_names.hpp"

namespace detent {

TEST(tensor_names, are_those_of_llama_unless_a_family_says_others) {
    tensor_names const n;
    EXPECT_EQ(n.prefixes.front() + n.blocks + "0." + n.query, "model.layers.0.self_attn.q_proj");
    EXPECT_EQ(n.prefixes.front() + n.embeddings, "model.embed_tokens");
    EXPECT_EQ(n.head, "lm_head");
    EXPECT_TRUE(n.qkv.empty() && n.gate_up.empty() && n.router.empty() && n.positions.empty() && n.sinks.empty());
    EXPECT_TRUE(n.attention_output_norm.empty() && n.mlp_output_norm.empty() && n.shared_expert.empty());
    EXPECT_EQ(n.qkv_order, fused_order::stacked);
    EXPECT_FALSE(n.transposed || n.fused_transposed);
}

} // namespace detent
