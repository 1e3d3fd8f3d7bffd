// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

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
    vector_type hidden_scale;    ///< from up to down, (intermediate); only where there is a gate, as SwiGLU is linear in up

    /// All of them.
    std::array<vector_type*, 8> parts() {
        return {&attention_scale, &attention_shift, &context_scale, &context_shift,
                &key_scale,       &mlp_scale,       &mlp_shift,     &hidden_scale};
    }

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

    /// The block that computes the same. Biases are made where a shift needs one.
    dense_block<Scalar> apply(dense_block<Scalar> b) const {
        if (attention_scale.size() > 0) {
            write(attention_scale, attention_shift, b.attention_norm);
            for (linear_role const role : {linear_role::query, linear_role::key, linear_role::value}) {
                read(attention_scale, attention_shift, b[role]);
            }
        }
        if (context_scale.size() > 0) {
            write(context_scale, context_shift, b[linear_role::value]);
            read(for_queries(context_scale, b.heads), for_queries(context_shift, b.heads), b[linear_role::output]);
        }
        if (key_scale.size() > 0) {
            vector_type const keys = of_keys(b);
            write(for_queries(keys, b.heads), {}, b[linear_role::query]);
            write(keys.cwiseInverse(), {}, b[linear_role::key]);
        }
        if (mlp_scale.size() > 0) {
            write(mlp_scale, mlp_shift, b.mlp_norm);
            for (linear_role const role : mlp_readers(b)) {
                read(mlp_scale, mlp_shift, b[role]);
            }
        }
        if (hidden_scale.size() > 0) {
            DETENT_EXPECTS(b.has_gate());
            write(hidden_scale, {}, b[linear_role::up]);
            read(hidden_scale, {}, b[linear_role::down]);
        }
        return b;
    }

    /// Adds the gradient with respect to the scales and shifts to `sum`. `b` is the block, `made` what `apply` made of
    /// it, and `g` the gradient with respect to that, which is used up.
    void backward(dense_block<Scalar> const& b, dense_block<Scalar> const& made, dense_block<Scalar>& g,
                  equivalent_transform& sum) const {
        // In the reverse order of `apply`: rows of a weight before its columns.
        vector_type none;
        if (hidden_scale.size() > 0) {
            read_backward(b[linear_role::down], g[linear_role::down], sum.hidden_scale, none);
            write_backward(hidden_scale, made[linear_role::up], g[linear_role::up], sum.hidden_scale, none);
        }
        if (mlp_scale.size() > 0) {
            for (linear_role const role : mlp_readers(b)) {
                read_backward(b[role], g[role], sum.mlp_scale, sum.mlp_shift);
            }
            write_backward(mlp_scale, made.mlp_norm, g.mlp_norm, sum.mlp_scale, sum.mlp_shift);
        }
        if (key_scale.size() > 0) {
            vector_type const keys = of_keys(b);
            vector_type queries = vector_type::Zero(b[linear_role::query].weight.rows());
            vector_type inverse = vector_type::Zero(keys.size());
            write_backward(for_queries(keys, b.heads), made[linear_role::query], g[linear_role::query], queries, none);
            write_backward(keys.cwiseInverse(), made[linear_role::key], g[linear_role::key], inverse, none);
            vector_type const channels = from_queries(queries, b.heads) - inverse.cwiseQuotient(keys.cwiseAbs2());
            for (index_t c = 0; c < channels.size(); ++c) {
                sum.key_scale(key_index(b, c)) += channels(c);
            }
        }
        if (context_scale.size() > 0) {
            vector_type scales = vector_type::Zero(b[linear_role::output].weight.cols());
            vector_type shifts = context_shift.size() > 0 ? scales : none;
            read_backward(b[linear_role::output], g[linear_role::output], scales, shifts);
            sum.context_scale += from_queries(scales, b.heads);
            if (shifts.size() > 0) {
                sum.context_shift += from_queries(shifts, b.heads);
            }
            write_backward(context_scale, made[linear_role::value], g[linear_role::value], sum.context_scale,
                           sum.context_shift);
        }
        if (attention_scale.size() > 0) {
            for (linear_role const role : {linear_role::query, linear_role::key, linear_role::value}) {
                read_backward(b[role], g[role], sum.attention_scale, sum.attention_shift);
            }
            write_backward(attention_scale, made.attention_norm, g.attention_norm, sum.attention_scale,
                           sum.attention_shift);
        }
    }

private:
    static std::vector<linear_role> mlp_readers(dense_block<Scalar> const& b) {
        return b.has_gate() ? std::vector{linear_role::gate, linear_role::up} : std::vector{linear_role::up};
    }

    /// Makes a linear layer or a norm, whose rows are channels, write (x - d) / s.
    template <class Layer> static void write(vector_type const& scale, vector_type const& shift, Layer& layer) {
        DETENT_EXPECTS(layer.weight.rows() == scale.size());
        layer.weight.array().colwise() /= scale.array();
        if (shift.size() > 0) {
            if (layer.bias.size() == 0) {
                layer.bias = vector_type::Zero(scale.size());
            }
            layer.bias -= shift;
        }
        if (layer.bias.size() > 0) {
            layer.bias.array() /= scale.array();
        }
    }

    /// Makes a linear layer expect that.
    static void read(vector_type const& scale, vector_type const& shift, dense_linear<Scalar>& layer) {
        DETENT_EXPECTS(layer.weight.cols() == scale.size());
        if (shift.size() > 0) {
            if (layer.bias.size() == 0) {
                layer.bias = vector_type::Zero(layer.weight.rows());
            }
            layer.bias.noalias() += layer.weight * shift;
        }
        layer.weight.array().rowwise() *= scale.transpose().array();
    }

    /// The gradients of `write`, given what it made and the gradient with respect to that, which becomes that with
    /// respect to what it was given. Where `shift_sum` is empty there is no shift.
    template <class Layer>
    static void write_backward(vector_type const& scale, Layer const& made, Layer& g, vector_type& scale_sum,
                               vector_type& shift_sum) {
        scale_sum -= g.weight.cwiseProduct(made.weight).rowwise().sum().cwiseQuotient(scale);
        g.weight.array().colwise() /= scale.array();
        if (g.bias.size() > 0) {
            scale_sum -= g.bias.cwiseProduct(made.bias).cwiseQuotient(scale);
            g.bias.array() /= scale.array();
            if (shift_sum.size() > 0) {
                shift_sum -= g.bias;
            }
        }
    }

    /// The gradients of `read`, given the layer before it.
    static void read_backward(dense_linear<Scalar> const& layer, dense_linear<Scalar> const& g, vector_type& scale_sum,
                              vector_type& shift_sum) {
        scale_sum += g.weight.cwiseProduct(layer.weight).colwise().sum().transpose();
        if (shift_sum.size() > 0) {
            shift_sum.noalias() += layer.weight.transpose() * g.bias;
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
        vector_type sums = vector_type::Zero(heads.kv_heads * heads.head_dim);
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
        DETENT_EXPECTS(key_scale.size() == key_scales(b));
        vector_type scales(b.heads.kv_heads * b.heads.head_dim);
        for (index_t c = 0; c < scales.size(); ++c) {
            scales(c) = key_scale(key_index(b, c));
        }
        return scales;
    }
};

} // namespace detent::inline DETENT_ABI
