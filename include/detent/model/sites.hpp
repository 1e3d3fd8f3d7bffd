// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/model/block.hpp"
#include "detent/nn/attention.hpp"

// Where the channels of a block can be scaled and shifted so that it computes what it did. The algebra, which folding
// and the learnable equivalent transformation share:
// - attention_input and mlp_input are scaled by the norm that makes them, and shifted where that has a bias. Routers
//   that read them are scaled too. It is not possible where a branch reads the hidden state itself (BERT, OLMo 2).
// - The context is scaled by values always, since it is linear in them; query heads that read one key-value head share
//   its scales. It is shifted where probabilities add up to 1, which they do not beside sinks.
// - Keys and queries are scaled by opposite factors, one for each pair of channels that is rotated together; not where
//   they are normalized.
// - hidden is scaled by up, behind a gate or ReLU; not behind other activations or a gate with limits (gpt-oss).
namespace detent::inline DETENT_ABI {

/// All sites, in the order they are computed.
inline constexpr site all_sites[] = {site::attention_input, site::context, site::mlp_input, site::hidden};

/// The site that a layer of `role` reads.
template <class Layer> site site_read_by(basic_block<Layer> const& b, linear_role role) {
    switch (role) {
    case linear_role::query:
    case linear_role::key:
    case linear_role::value:
        return site::attention_input;
    case linear_role::output:
        return site::context;
    case linear_role::down:
        return site::hidden;
    default:
        return b.shares_norm() ? site::attention_input : site::mlp_input;
    }
}

/// The linear layers that read a site, those that stay float among them: of `hidden` in feed-forward network `network`,
/// of other sites in all. None read `mlp_input` where the branches share a norm, see `attention_input`.
template <class Layer> std::vector<layer_place> readers_of(basic_block<Layer> const& b, site at, index_t network = 0) {
    std::vector<layer_place> readers;
    for (layer_place const place : b.places()) {
        if (site_read_by(b, place.role) == at && (at != site::hidden || place.expert == network)) {
            readers.push_back(place);
        }
    }
    return readers;
}

/// How many channels a site has: `hidden` in feed-forward network `network`.
template <class Layer> index_t channels_of(basic_block<Layer> const& b, site at, index_t network = 0) {
    switch (at) {
    case site::context:
        return b.output.shape().cols;
    case site::hidden:
        return b.linear({linear_role::down, network}).shape().cols;
    default:
        return b.query.shape().cols;
    }
}

/// Why the channels at a site cannot be scaled; empty where they can.
template <class Layer> std::string scale_obstacle(basic_block<Layer> const& b, site at) {
    auto const through = [](auto const& norm) {
        return !norm ? "scales cannot be folded into its input, which is also added to what its branch makes"
               : norm->weight.size() == 0 ? "its norm has no weights"
                                          : "";
    };
    switch (at) {
    case site::attention_input:
        return through(b.attention_norms.input);
    case site::mlp_input:
        return b.shares_norm() ? "reads what the norm of attention makes, and is scaled with that"
                               : through(b.mlp_norms.input);
    case site::context:
        return "";
    case site::hidden:
        break;
    }
    if (b.mlps.front().gate) {
        bool const linear = b.gate_form.limit == 0 && b.gate_form.up_offset == 0;
        return linear ? "" : "scales cannot pass a gate with limits";
    }
    return b.gate_form.kind == nn::activation::relu
               ? ""
               : "scales cannot pass the activation behind it; they pass ReLU and gates only";
}

/// Whether a shift passes too.
template <class Layer> bool can_shift(basic_block<Layer> const& b, site at) {
    switch (at) {
    case site::attention_input:
        return b.attention_norms.input && b.attention_norms.input->bias.size() > 0;
    case site::mlp_input:
        return !b.shares_norm() && b.mlp_norms.input && b.mlp_norms.input->bias.size() > 0;
    case site::context:
        return b.attention.sinks.empty();
    case site::hidden:
        break;
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
    index_t const index = in_head >= rotated      ? in_head - rotated / 2
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
