// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

// Scales of the channels of an activation, moved into the weights around it. What a layer writes is multiplied channel
// by channel, and the layers that read it have their columns divided by the same scales:
//     x W^T = (x diag(s)) (W diag(1 / s))^T.
// SmoothQuant (Xiao et al.) and OmniQuant's equivalent transformation (Shao et al., eq. 3) divide activations, which is
// the same with 1 / s; the pre-shifted exponent bias of LLM-FP4 (Liu et al., eq. 19) multiplies them by powers of two.
// Powers of two change no rounding: as long as nothing overflows or becomes subnormal, the products keep their bits.

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/nn/attention.hpp"

namespace detent::inline DETENT_ABI {

/// Checks scales from outside: one for each of `channels`, each from 2^-64 to 2^64, which keeps scaled weights normal
/// numbers. @throws error about `subject` that names the first wrong channel.
inline void check_channel_scales(std::string const& subject, float_vector const& scales, index_t channels) {
    if (scales.size() != channels) {
        raise(error(subject,
                    "there are " + std::to_string(scales.size()) + " for " + std::to_string(channels) + " channels"));
    }
    for (index_t c = 0; c < channels; ++c) {
        if (!(scales(c) >= 0x1p-64F && scales(c) <= 0x1p64F)) {
            raise(error(subject, "that of channel " + std::to_string(c) + " is " + std::to_string(scales(c)) +
                                     "; a scale is positive, from 2^-64 to 2^64"));
        }
    }
}

/// Makes a norm write its channels times `scales`: multiplies its `weight` and, unless that is empty, its `bias`.
inline void fold_into_norm(float_vector const& scales, float_vector& weight, float_vector& bias) {
    expect_valid(weight.size() == scales.size() && (bias.size() == scales.size() || bias.size() == 0), "scales",
                 "are not as many as the channels of the norm");
    weight.array() *= scales.array();
    if (bias.size() > 0) {
        bias.array() *= scales.array();
    }
}

/// Makes a linear layer write its channels times `scales`: multiplies the rows of `w` (out, in) and, unless that is
/// empty, its `bias`.
inline void fold_into_outputs(float_vector const& scales, matrix_ref w, float_vector& bias) {
    expect_valid(w.rows() == scales.size() && (bias.size() == scales.size() || bias.size() == 0), "scales",
                 "are not as many as the outputs of the layer");
    w.array().colwise() *= scales.array();
    if (bias.size() > 0) {
        bias.array() *= scales.array();
    }
}

/// Makes a linear layer read channels that were multiplied by `scales`: divides the columns of `w` (out, in).
inline void fold_into_inputs(float_vector const& scales, matrix_ref w) {
    expect_valid(w.cols() == scales.size(), "scales", "are not as many as the inputs of the layer");
    w.array().rowwise() /= scales.transpose().array();
}

/// The scales of the value channels behind `scales` of attention's result, (heads * head_dim): those of the first query
/// head of each group, (kv_heads * head_dim).
inline float_vector value_scales(float_vector const& scales, nn::attention_heads const& heads) {
    expect_valid(scales.size() == heads.heads * heads.head_dim, "scales",
                 "are not as many as the channels of the heads");
    index_t const queries = heads.heads / heads.kv_heads; // that read one key-value head
    float_vector shared(heads.kv_heads * heads.head_dim);
    for (index_t h = 0; h < heads.kv_heads; ++h) {
        shared.segment(h * heads.head_dim, heads.head_dim) =
            scales.segment(h * queries * heads.head_dim, heads.head_dim);
    }
    return shared;
}

/// `scales` of attention's result, (heads * head_dim), made the same for all query heads that read one key-value head,
/// since a value channel has one scale: the smallest of them, so that no channel exceeds what its own scale allowed.
inline float_vector shared_by_heads(float_vector scales, nn::attention_heads const& heads) {
    expect_valid(scales.size() == heads.heads * heads.head_dim, "scales",
                 "are not as many as the channels of the heads");
    index_t const queries = heads.heads / heads.kv_heads; // that read one key-value head
    for (index_t h = 0; h < heads.kv_heads; ++h) {
        Eigen::Map<matrix> group(scales.data() + h * queries * heads.head_dim, queries,
                                 heads.head_dim); // (query head, channel)
        group.rowwise() = group.colwise().minCoeff().eval();
    }
    return scales;
}

} // namespace detent::inline DETENT_ABI
