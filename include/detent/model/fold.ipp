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
#include "detent/model/fold.hpp"
#include "detent/nn/activation.hpp"
#include "detent/transform/channel_scale.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE std::vector<linear_role> readers_of(block const& b, fold_site site) {
    return b.groups()[static_cast<std::size_t>(site)];
}

DETENT_INLINE index_t channels_of(block const& b, fold_site site) {
    return b.linear(readers_of(b, site).front()).shape().cols;
}

DETENT_INLINE std::optional<error> fold_obstacle(block const& b, fold_site site) {
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

DETENT_INLINE void fold(block& b, fold_site site, float_vector const& scales) {
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

DETENT_INLINE void plant_outliers(decoder& model, float factor, index_t channels) {
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
