// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"
#include "detent/nn/activation.hpp"
#include "detent/transform/channel_scale.hpp"

namespace detent::inline DETENT_ABI {

/// The inputs of a block's linear layers, whose channels can be scaled: each is what the function of `block` by that
/// name computes, and what one of `block::groups()` reads, in that order.
enum class fold_site {
    attention_input,   ///< from the norm to query, key and value
    attention_context, ///< from value, through attention, to output
    mlp_input,         ///< from the norm to up and, with SwiGLU, gate
    mlp_hidden         ///< from up to down
};

/// All sites, in the order they are computed.
inline constexpr fold_site fold_sites[] = {fold_site::attention_input, fold_site::attention_context,
                                           fold_site::mlp_input, fold_site::mlp_hidden};

/// The linear layers of `b` that read the activation at `site`.
inline std::vector<linear_role> readers_of(block const& b, fold_site site) {
    return b.groups()[static_cast<std::size_t>(site)];
}

/// How many channels the activation of `b` at `site` has.
inline index_t channels_of(block const& b, fold_site site) {
    return b.linear(readers_of(b, site).front()).shape().cols;
}

/// Why no scales can be folded into `b` at `site`: an error that names the layer in the way. Nothing when they can.
inline std::optional<error> fold_obstacle(block const& b, fold_site site) {
    std::vector<linear_role> layers = readers_of(b, site);
    for (linear_role const role : layers) {
        if (b.linear(role).input) {
            return error("layer '" + b.linear(role).name + "'",
                         "has a quantized input; scales are folded before inputs are quantized");
        }
    }
    bool const branch_input = site == fold_site::attention_input || site == fold_site::mlp_input;
    if (branch_input && b.norms == norm_placement::after) {
        return error("layer '" + b.linear(layers.front()).name + "'",
                     "scales cannot be folded into its input, which is also added to what its branch makes");
    }
    if (site == fold_site::attention_context) {
        layers.push_back(linear_role::value);
    }
    if (site == fold_site::mlp_hidden) {
        // What gate and up make is linear in up, and s relu(x) = relu(s x) for s > 0; no other activation is like that.
        if (!b.gate && b.activation != nn::activation::relu) {
            return error("layer '" + b.up.name + "'",
                         "scales cannot pass the activation behind it; they pass ReLU and SwiGLU only");
        }
        layers.push_back(linear_role::up);
    }
    for (linear_role const role : layers) {
        auto const& layer = b.linear(role);
        if (!std::holds_alternative<matrix>(layer.weight)) {
            return error("layer '" + layer.name + "'", "is quantized; scales are folded into float weights only");
        }
    }
    return {};
}

/// Whether `fold` can scale the channels of `b` at `site`.
inline bool can_fold(block const& b, fold_site site) { return !fold_obstacle(b, site); }

/// Multiplies channel j of the activation of `b` at `site` by `scales(j)` and divides the weights that read it, so that
/// the block computes what it did: to the bit where all scales are powers of two and nothing becomes subnormal. At
/// `attention_context`, query heads that read one key-value head must have the same scales, see `shared_by_heads`.
/// @throws error, with `b` as it was, when there are not `channels_of(b, site)` scales, one is not from 2^-64 to 2^64,
/// heads disagree, or a layer is in the way (`fold_obstacle`).
inline void fold(block& b, fold_site site, float_vector const& scales) {
    if (auto const obstacle = fold_obstacle(b, site)) {
        throw *obstacle;
    }
    auto const subject = [](std::string const& producer) { return "scales of what '" + producer + "' makes"; };
    auto const scale_norm = [&](norm_layer& norm) {
        check_channel_scales(subject(norm.name), scales, norm.weight.size());
        fold_into_norm(scales, norm.weight, norm.bias);
    };
    switch (site) {
    case fold_site::attention_input:
        scale_norm(b.attention_norm);
        break;
    case fold_site::attention_context: {
        check_channel_scales(subject(b.value.name), scales, b.heads.heads * b.heads.head_dim);
        if (scales != shared_by_heads(scales, b.heads)) {
            throw error(subject(b.value.name), "they differ between query heads that read the same key-value head");
        }
        fold_into_outputs(value_scales(scales, b.heads), std::get<matrix>(b.value.weight), b.value.bias);
        break;
    }
    case fold_site::mlp_input:
        scale_norm(b.mlp_norm);
        break;
    case fold_site::mlp_hidden:
        check_channel_scales(subject(b.up.name), scales, b.up.shape().rows);
        fold_into_outputs(scales, std::get<matrix>(b.up.weight), b.up.bias);
        break;
    }
    for (linear_role const role : readers_of(b, site)) {
        fold_into_inputs(scales, std::get<matrix>(b.linear(role).weight));
    }
}

/// Gives a small model what makes activations of large ones hard to quantize: a few channels far larger than the rest
/// (Dettmers et al., "LLM.int8()"). Folds `factor` into `channels` evenly spaced channels of the inputs of attention
/// and feed-forward network of every block; the model computes what it did. @throws error as `fold`, and when there are
/// not so many channels.
inline void plant_outliers(decoder& model, float factor = 16, index_t channels = 4) {
    for (block& b : model.blocks) {
        for (fold_site const site : {fold_site::attention_input, fold_site::mlp_input}) {
            index_t const all = channels_of(b, site);
            if (channels < 0 || channels > all) {
                throw error("outliers", std::to_string(channels) + " of " + std::to_string(all) + " channels");
            }
            float_vector scales = float_vector::Ones(all);
            for (index_t i = 0; i < channels; ++i) {
                scales((2 * i + 1) * all / (2 * channels)) = factor; // the middle of each of as many stretches
            }
            fold(b, site, scales);
        }
    }
}

} // namespace detent::inline DETENT_ABI
