// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/model/block.hpp"
#include "detent/nn/attention.hpp"

// Where the channels of a block can be scaled and shifted so that it computes what it did. The algebra, which folding
// and the learnable equivalent transformation share:
//
// | site | exact | not exact |
// |---|---|---|
// | attention_input, mlp_input | behind a norm of its own; a shift, where that has a bias | blocks whose branches read the hidden state itself (BERT, OLMo 2) |
// | context | always: values are linear, and probabilities add up to 1; | a shift beside sinks, which take a part of them |
// | keys and queries | per pair that is rotated together | where queries and keys are normalized |
// | hidden | behind a gate, which is linear in up; without, ReLU and positive scales | other activations; gates with limits (gpt-oss) |
namespace detent::inline DETENT_ABI {

/// The site that a layer of `role` reads.
template <class Layer> site site_read_by(basic_block<Layer> const& b, linear_role role) {
    switch (role) {
    case linear_role::query:
    case linear_role::key:
    case linear_role::value: return site::attention_input;
    case linear_role::output: return site::context;
    case linear_role::down: return site::hidden;
    default: return b.shares_norm() ? site::attention_input : site::mlp_input;
    }
}

/// Why the channels at a site cannot be scaled; empty where they can.
template <class Layer> std::string scale_obstacle(basic_block<Layer> const& b, site at) {
    switch (at) {
    case site::attention_input:
        return b.attention_norms.input ? "" : "scales cannot be folded into its input, which is also added to what its branch makes";
    case site::mlp_input:
        return b.shares_norm() ? "reads what the norm of attention makes, and is scaled with that"
               : b.mlp_norms.input ? ""
                                   : "scales cannot be folded into its input, which is also added to what its branch makes";
    case site::context: return "";
    case site::hidden: break;
    }
    bool const gated = b.mlps.front().gate.has_value();
    bool const linear = b.gate_form.limit == 0 && b.gate_form.up_offset == 0;
    return gated ? (linear ? "" : "scales cannot pass a gate with limits")
           : b.gate_form.kind == nn::activation::relu
               ? ""
               : "scales cannot pass the activation behind it; they pass ReLU and gates only";
}

/// Whether a shift passes too.
template <class Layer> bool can_shift(basic_block<Layer> const& b, site at) {
    switch (at) {
    case site::attention_input: return b.attention_norms.input && b.attention_norms.input->bias.size() > 0;
    case site::mlp_input: return !b.shares_norm() && b.mlp_norms.input && b.mlp_norms.input->bias.size() > 0;
    case site::context: return b.attention.sinks.empty();
    case site::hidden: break;
    }
    return false;
}

/// How many scales queries and keys can have between them: one for each channel of the keys, or for each pair of them
/// that is rotated together; none where they are normalized.
template <class Layer> index_t key_scales(basic_block<Layer> const& b) {
    if (b.query_norm || b.key_norm) {
        return 0;
    }
    index_t const rotated = b.rotary ? b.rotary->dimensions : 0;
    return b.heads.kv_heads * (b.heads.head_dim - rotated / 2);
}

/// Which of them belongs to a channel of the keys.
template <class Layer> index_t key_index(basic_block<Layer> const& b, index_t channel) {
    index_t const rotated = b.rotary ? b.rotary->dimensions : 0;
    index_t const head = channel / b.heads.head_dim, in_head = channel % b.heads.head_dim;
    index_t const index = in_head >= rotated           ? in_head - rotated / 2
                          : b.rotary->interleaved ? in_head / 2
                                                       : in_head % (rotated / 2);
    return head * (b.heads.head_dim - rotated / 2) + index;
}

/// Numbers of the channels of key-value heads, repeated for the query heads that read each.
template <class Scalar>
basic_vector<Scalar> for_queries(basic_vector<Scalar> const& channels, nn::attention_heads const& heads) {
    index_t const group = heads.heads / heads.kv_heads * heads.head_dim;
    basic_vector<Scalar> all(channels.size() > 0 ? heads.heads * heads.head_dim : 0);
    for (index_t i = 0; i < all.size(); ++i) {
        all(i) = channels(i / group * heads.head_dim + i % heads.head_dim);
    }
    return all;
}

/// The sums of numbers over the query heads that read the same key-value head.
template <class Scalar>
basic_vector<Scalar> sum_over_queries(basic_vector<Scalar> const& all, nn::attention_heads const& heads) {
    index_t const group = heads.heads / heads.kv_heads * heads.head_dim;
    basic_vector<Scalar> sums = basic_vector<Scalar>::Zero(all.size() > 0 ? heads.kv_heads * heads.head_dim : 0);
    for (index_t i = 0; i < all.size(); ++i) {
        sums(i / group * heads.head_dim + i % heads.head_dim) += all(i);
    }
    return sums;
}

} // namespace detent::inline DETENT_ABI
