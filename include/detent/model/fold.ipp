// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/model/sites.hpp"
#include "detent/transform/channel_scale.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE std::vector<matrix const*> weights_reading(block const& b, site at, index_t network) {
    std::vector<matrix const*> weights;
    for (layer_place const place : readers_of(b, at, network)) {
        if (is_quantized(place.role)) {
            weights.push_back(&std::get<matrix>(b.linear(place).weight));
        }
    }
    return weights;
}

DETENT_INLINE std::optional<error> fold_obstacle(block const& b, site at, index_t network) {
    layer_place const writer{at == site::context ? linear_role::value : linear_role::up, network};
    std::vector<layer_place> layers = readers_of(b, at, network);
    for (layer_place const place : layers) {
        if (b.linear(place).input) {
            return error("layer '" + b.linear(place).name + "'",
                         "has a quantized input; scales are folded before inputs are quantized");
        }
    }
    if (std::string const problem = scale_obstacle(b, at); !problem.empty()) {
        return error("layer '" + b.linear(at == site::hidden || layers.empty() ? writer : layers.front()).name + "'",
                     problem);
    }
    if (at == site::context || at == site::hidden) {
        layers.push_back(writer);
    }
    for (layer_place const place : layers) {
        auto const& layer = b.linear(place);
        if (!std::holds_alternative<matrix>(layer.weight)) {
            return error("layer '" + layer.name + "'", "is quantized; scales are folded into float weights only");
        }
    }
    return {};
}

DETENT_INLINE void fold(block& b, site at, float_vector const& scales, index_t network) {
    if (auto const obstacle = fold_obstacle(b, at, network)) {
        throw *obstacle;
    }
    auto const subject = [](std::string const& producer) { return "scales of what '" + producer + "' makes"; };
    auto const scale_norm = [&](norm_layer& norm) {
        check_channel_scales(subject(norm.name), scales, norm.weight.size());
        fold_into_norm(scales, norm.weight, norm.bias);
    };
    switch (at) {
    case site::attention_input:
        scale_norm(*b.attention_norms.input);
        break;
    case site::context:
        check_channel_scales(subject(b.value.name), scales, b.heads.heads * b.heads.head_dim);
        if (scales != shared_by_heads(scales, b.heads)) {
            throw error(subject(b.value.name), "they differ between query heads that read the same key-value head");
        }
        fold_into_outputs(value_scales(scales, b.heads), std::get<matrix>(b.value.weight), b.value.bias);
        break;
    case site::mlp_input:
        scale_norm(*b.mlp_norms.input);
        break;
    case site::hidden: {
        linear_layer& up = b.linear({linear_role::up, network});
        check_channel_scales(subject(up.name), scales, up.shape().rows);
        fold_into_outputs(scales, std::get<matrix>(up.weight), up.bias);
        break;
    }
    }
    for (layer_place const place : readers_of(b, at, network)) {
        fold_into_inputs(scales, std::get<matrix>(b.linear(place).weight));
    }
}

DETENT_INLINE void plant_outliers(block& b, float factor, index_t channels) {
    for (site const at : {site::attention_input, site::mlp_input}) {
        if (at == site::mlp_input && b.shares_norm()) {
            continue; // the other's
        }
        index_t const all = channels_of(b, at);
        if (channels < 0 || channels > all) {
            throw error("outliers", std::to_string(channels) + " of " + std::to_string(all) + " channels");
        }
        float_vector scales = float_vector::Ones(all);
        for (index_t i = 0; i < channels; ++i) {
            scales((2 * i + 1) * all / (2 * channels)) = factor; // the middle of each of as many stretches
        }
        fold(b, at, scales);
    }
}

DETENT_INLINE void plant_outliers(decoder& model, float factor, index_t channels) {
    for (block& b : model.blocks) {
        plant_outliers(b, factor, channels);
    }
}

} // namespace detent::inline DETENT_ABI
