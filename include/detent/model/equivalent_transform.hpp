// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/model/block.hpp"
#include "detent/model/dense_block.hpp"

namespace detent::inline DETENT_ABI {

/// Scales s and shifts d of the channels between the linear layers of a decoder's block, which change its weights but
/// not what it computes (learnable equivalent transformation, OmniQuant, section 3.3): what writes a channel x writes
/// (x - d) / s instead, and what reads it has weights W diag(s) and the bias b + W d. An empty vector leaves its
/// channels as they are. Also what gradients with respect to it are kept in.
template <class Scalar> struct equivalent_transform {
    using vector_type = basic_vector<Scalar>;

    vector_type attention_scale; ///< from the norm to query, key and value, (hidden)
    vector_type attention_shift; ///< likewise; for norms with a bias only
    vector_type context_scale;   ///< from value to output, (kv_heads * head_dim): shared by query heads that read one
    vector_type context_shift;   ///< likewise: probabilities of attention add up to 1, so a shift passes them
    vector_type key_scale;       ///< from key, times s, to query, divided by s; see `key_scales`
    vector_type mlp_scale;       ///< from the norm to gate and up, (hidden)
    vector_type mlp_shift;       ///< likewise; for norms with a bias only
    vector_type hidden_scale;    ///< from up to down, (intermediate); where there is a gate, as SwiGLU is linear in up

    /// All of them, and their names.
    std::array<vector_type*, 8> parts() {
        return {&attention_scale, &attention_shift, &context_scale, &context_shift,
                &key_scale,       &mlp_scale,       &mlp_shift,     &hidden_scale};
    }
    static constexpr std::array<std::string_view, 8> part_names{"attention_scale", "attention_shift", "context_scale",
                                                                "context_shift",   "key_scale",       "mlp_scale",
                                                                "mlp_shift",       "hidden_scale"};

    /// Moves scales that are nearly 0 away from it, with their sign; blocks are divided by them.
    void keep_invertible() {
        for (vector_type* const scale : {&attention_scale, &context_scale, &key_scale, &mlp_scale, &hidden_scale}) {
            *scale = scale->unaryExpr([](Scalar s) { return std::copysign(std::max(std::abs(s), Scalar(1e-2)), s); });
        }
    }

    /// Zeros in the same shape.
    equivalent_transform zeros() const {
        equivalent_transform z = *this;
        for (vector_type* const part : z.parts()) {
            part->setZero();
        }
        return z;
    }

    /// How many numbers `key_scale` has: one for each channel of the keys, or for each pair that is rotated together.
    static index_t key_scales(dense_block<Scalar> const& b) {
        return b.heads.kv_heads * b.heads.head_dim / (b.rope ? 2 : 1);
    }

    bool empty() const {
        return attention_scale.size() + context_scale.size() + key_scale.size() + mlp_scale.size() +
                   hidden_scale.size() == 0;
    }

    /// The block that computes the same. Biases are made where a shift needs one.
    dense_block<Scalar> apply(dense_block<Scalar> b) const {
        apply_to_norms(b);
        for (linear_role const role : block_roles) {
            b[role] = made(b, role);
        }
        return b;
    }

    /// The norms of that block.
    void apply_to_norms(dense_block<Scalar>& b) const {
        write({attention_scale, attention_shift}, b.attention_norm.weight, b.attention_norm.bias);
        write({mlp_scale, mlp_shift}, b.mlp_norm.weight, b.mlp_norm.bias);
    }

    /// One of its linear layers.
    dense_linear<Scalar> made(dense_block<Scalar> const& b, linear_role role) const {
        dense_linear<Scalar> layer = b[role];
        if (layer.weight.size() == 0) {
            return layer;
        }
        auto const reads = read_by(b, role);
        auto const writes = written_by(b, role);
        DETENT_EXPECTS(reads.scale.size() == 0 || reads.scale.size() == layer.weight.cols());
        if (layer.bias.size() == 0 && reads.shift.size() + writes.shift.size() > 0) {
            layer.bias = vector_type::Zero(layer.weight.rows());
        }
        if (reads.shift.size() > 0) {
            layer.bias.noalias() += layer.weight * reads.shift;
        }
        if (reads.scale.size() > 0) {
            layer.weight.array().rowwise() *= reads.scale.transpose().array();
        }
        write(writes, layer.weight, layer.bias);
        return layer;
    }

    /// Adds to `sum` what the gradient `g` with respect to a linear layer that was `made` of `b` says about the scales
    /// and shifts.
    void backward(dense_block<Scalar> const& b, linear_role role, dense_linear<Scalar> const& made,
                  dense_linear<Scalar> const& g, equivalent_transform& sum) const {
        auto const reads = read_by(b, role);
        auto const writes = written_by(b, role);
        // Gradients with respect to the logarithms of scales: the weight is W diag(read) / written, row by row.
        vector_type written = vector_type::Zero(made.weight.rows()), read = vector_type::Zero(made.weight.cols());
        for (index_t row = 0; row < made.weight.rows(); ++row) {
            auto const product = g.weight.row(row).cwiseProduct(made.weight.row(row));
            written(row) = -product.sum();
            read += product.transpose();
        }
        vector_type bias = g.bias; // then with respect to b + W d
        if (bias.size() > 0 && writes.scale.size() > 0) {
            written -= g.bias.cwiseProduct(made.bias);
            bias.array() /= writes.scale.array();
        }
        channels slopes{reads.scale.size() > 0 ? vector_type(read.cwiseQuotient(reads.scale)) : vector_type{}, {}};
        if (reads.shift.size() > 0) {
            slopes.shift = b[role].weight.transpose() * bias;
        }
        if (role == linear_role::output) {
            slopes = {from_queries(slopes.scale, b.heads), from_queries(slopes.shift, b.heads)};
        }
        auto const [scale, shift] = place_read(sum, role);
        add(slopes, {scale, shift});

        if (role == linear_role::value) {
            add({context_scale.size() > 0 ? vector_type(written.cwiseQuotient(context_scale)) : vector_type{},
                 context_shift.size() > 0 ? vector_type(-bias) : vector_type{}},
                {&sum.context_scale, &sum.context_shift});
        } else if (role == linear_role::up && hidden_scale.size() > 0) {
            sum.hidden_scale += written.cwiseQuotient(hidden_scale);
        } else if ((role == linear_role::query || role == linear_role::key) && key_scale.size() > 0) {
            // Keys are written with 1 / s.
            vector_type const of_keys = role == linear_role::query ? from_queries(written, b.heads) : -written;
            for (index_t c = 0; c < of_keys.size(); ++c) {
                index_t const i = key_index(b, c);
                sum.key_scale(i) += of_keys(c) / key_scale(i);
            }
        }
    }

    /// The same for the norms: those of the transformed block, and the gradients with respect to them.
    void backward(dense_norm<Scalar> const& attention, dense_norm<Scalar> const& attention_gradient,
                  dense_norm<Scalar> const& mlp, dense_norm<Scalar> const& mlp_gradient,
                  equivalent_transform& sum) const {
        norm_backward({attention_scale, attention_shift}, attention, attention_gradient,
                      {&sum.attention_scale, &sum.attention_shift});
        norm_backward({mlp_scale, mlp_shift}, mlp, mlp_gradient, {&sum.mlp_scale, &sum.mlp_shift});
    }

private:
    /// Scales and shifts of the channels at one place, or none.
    struct channels {
        vector_type scale, shift;
    };
    struct site {
        vector_type *scale, *shift;
    };

    /// The place that a linear layer reads, of this or of gradients with respect to it.
    template <class Transform> static auto place_read(Transform& t, linear_role role) {
        switch (role) {
        case linear_role::query:
        case linear_role::key:
        case linear_role::value: return std::pair(&t.attention_scale, &t.attention_shift);
        case linear_role::output: return std::pair(&t.context_scale, &t.context_shift);
        case linear_role::down: return std::pair(&t.hidden_scale, decltype(&t.context_shift){});
        default: return std::pair(&t.mlp_scale, &t.mlp_shift);
        }
    }

    /// What a linear layer reads, and what it writes.
    channels read_by(dense_block<Scalar> const& b, linear_role role) const {
        auto const [scale, shift] = place_read(*this, role);
        channels const c{*scale, shift != nullptr ? *shift : vector_type{}};
        return role == linear_role::output ? channels{for_queries(c.scale, b.heads), for_queries(c.shift, b.heads)} : c;
    }
    channels written_by(dense_block<Scalar> const& b, linear_role role) const {
        switch (role) {
        case linear_role::query: return {for_queries(of_keys(b), b.heads), {}};
        case linear_role::key: return {of_keys(b).cwiseInverse(), {}};
        case linear_role::value: return {context_scale, context_shift};
        case linear_role::up: DETENT_EXPECTS(hidden_scale.size() == 0 || b.has_gate()); return {hidden_scale, {}};
        default: return {};
        }
    }

    /// Makes a layer, whose rows are channels, write (x - d) / s.
    template <class Weight> static void write(channels const& c, Weight& weight, vector_type& bias) {
        if (c.scale.size() == 0) {
            return;
        }
        DETENT_EXPECTS(weight.rows() == c.scale.size());
        weight.array().colwise() /= c.scale.array();
        if (bias.size() > 0) {
            if (c.shift.size() > 0) {
                bias -= c.shift;
            }
            bias.array() /= c.scale.array();
        }
    }

    static void norm_backward(channels const& c, dense_norm<Scalar> const& made, dense_norm<Scalar> const& g,
                              site sum) {
        if (c.scale.size() == 0) {
            return;
        }
        vector_type written = -g.weight.cwiseProduct(made.weight);
        if (made.bias.size() > 0) {
            written -= g.bias.cwiseProduct(made.bias);
        }
        add({written.cwiseQuotient(c.scale),
             c.shift.size() > 0 ? vector_type(-g.bias.cwiseQuotient(c.scale)) : vector_type{}},
            sum);
    }

    static void add(channels const& slopes, site sum) {
        if (slopes.scale.size() > 0) {
            *sum.scale += slopes.scale;
        }
        if (slopes.shift.size() > 0) {
            *sum.shift += slopes.shift;
        }
    }

    /// Numbers of the channels of key-value heads, repeated for the query heads that read each.
    static vector_type for_queries(vector_type const& channels, nn::attention_heads const& heads) {
        index_t const group = heads.heads / heads.kv_heads * heads.head_dim;
        vector_type all(channels.size() > 0 ? heads.heads * heads.head_dim : 0);
        for (index_t i = 0; i < all.size(); ++i) {
            all(i) = channels(i / group * heads.head_dim + i % heads.head_dim);
        }
        return all;
    }

    /// The sums of numbers over the query heads that read the same key-value head.
    static vector_type from_queries(vector_type const& all, nn::attention_heads const& heads) {
        index_t const group = heads.heads / heads.kv_heads * heads.head_dim;
        vector_type sums = vector_type::Zero(all.size() > 0 ? heads.kv_heads * heads.head_dim : 0);
        for (index_t i = 0; i < all.size(); ++i) {
            sums(i / group * heads.head_dim + i % heads.head_dim) += all(i);
        }
        return sums;
    }

    /// Which number of `key_scale` belongs to a channel of the keys.
    static index_t key_index(dense_block<Scalar> const& b, index_t channel) {
        index_t const half = b.heads.head_dim / 2;
        return b.rope ? channel / b.heads.head_dim * half + channel % half : channel;
    }

    vector_type of_keys(dense_block<Scalar> const& b) const {
        if (key_scale.size() == 0) {
            return {};
        }
        DETENT_EXPECTS(key_scale.size() == key_scales(b));
        vector_type scales(b.heads.kv_heads * b.heads.head_dim);
        for (index_t c = 0; c < scales.size(); ++c) {
            scales(c) = key_scale(key_index(b, c));
        }
        return scales;
    }
};

} // namespace detent::inline DETENT_ABI
