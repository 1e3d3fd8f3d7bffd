// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// How the rows of query, key and value lie in one tensor.
enum class fused_order {
    stacked,   ///< all of query, then all of key, then all of value
    by_head,   ///< query, key and value of one head after the other (BLOOM, GPT-NeoX)
    by_kv_head ///< for each key-value head its query heads, its key and its value (Falcon)
};

/// How a checkpoint calls its tensors: what stands after the prefix of the model, and in blocks after that of the
/// block, without `.weight` and `.bias`. Empty where a family has nothing of the kind.
struct tensor_names {
    std::vector<std::string> prefixes{"model.", ""}; ///< of all tensors but the head's; the first is the usual one
    std::string embeddings = "embed_tokens";
    std::string positions = {};
    std::string embedding_norm = {};
    std::string project_in = {}, project_out = {}; ///< between the embeddings and the hidden state
    std::string blocks = "layers.";                ///< before the number of a block
    std::string final_norm = "norm";
    std::string head = "lm_head"; ///< without the prefix

    std::string attention_norm = "input_layernorm"; ///< of what attention reads, or, there, of the sum
    std::string attention_output_norm = {};
    std::string mlp_norm = "post_attention_layernorm";
    std::string mlp_output_norm = {};
    std::string query_norm = "self_attn.q_norm";
    std::string key_norm = "self_attn.k_norm";
    std::string query = "self_attn.q_proj", key = "self_attn.k_proj", value = "self_attn.v_proj";
    std::string qkv = {}; ///< in place of the three
    fused_order qkv_order = fused_order::stacked;
    std::string qkv_dot = "."; ///< between that and `weight` or `bias`
    std::string output = "self_attn.o_proj";
    std::string sinks = {};
    std::string gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
    std::string gate_up = {};                               ///< in place of the two, stacked
    bool transposed = false;                                ///< weights are (in, out), as GPT-2's
    std::string norm_weight = "weight", norm_bias = "bias"; ///< of norms, behind a dot
    std::string scale_weight = "lambda1";                   ///< of output norms that only scale

    std::string router = {};            ///< of experts
    std::string router_correction = {}; ///< numbers added to its scores for the choice, a tensor of this whole name
    std::string experts = {};           ///< before the number of an expert and the names below
    std::string expert_gate = "gate_proj", expert_up = "up_proj", expert_down = "down_proj";
    std::string fused_gate_up = {}, fused_down = {}; ///< tensors (expert, ...) in place of them, tried first
    bool fused_transposed = false;                   ///< they are (expert, in, out), with gate and up in turns
    std::string shared_expert = {}, shared_gate = {};
    std::string shared_gate_up = {}; ///< the shared expert's, stacked, in place of its own names
    std::string shared_down = {};    ///< beside that
};

} // namespace detent::inline DETENT_ABI
