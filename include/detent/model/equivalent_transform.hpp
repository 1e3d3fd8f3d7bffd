// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_backward.hpp"
#include "detent/model/dense_block.hpp"
#include "detent/model/sites.hpp"

namespace detent::inline DETENT_ABI {

/// Scales s and shifts d of the channels at the sites of a block, which change its weights but not what it computes
/// (learnable equivalent transformation, OmniQuant, section 3.3): what writes a channel x writes (x - d) / s instead,
/// and what reads it has weights W diag(s) and the bias b + W d. An empty vector leaves its channels as they are. Where
/// that is exact is said in sites.hpp. Also what gradients with respect to it are kept in.
template <class Scalar> struct equivalent_transform {
    using vector_type = basic_vector<Scalar>;

    /// The scales and shifts of the channels of one site, or none.
    struct channels {
        vector_type scale, shift;
    };

    channels attention;    ///< from the norm to query, key and value (and what shares it), (hidden)
    channels context;      ///< from value to output, (kv_heads * head_dim): shared by query heads that read one
    vector_type key_scale; ///< from key, times s, to query, divided by s; see `key_scales`
    channels mlp;          ///< from the norm to gate, up and router of all networks, (hidden)
    std::vector<vector_type> hidden; ///< of each network, from up to down, (intermediate)

    /// All of them with their names.
    template <class F> void for_each_part(F const& f) {
        f("attention_scale", attention.scale);
        f("attention_shift", attention.shift);
        f("context_scale", context.scale);
        f("context_shift", context.shift);
        f("key_scale", key_scale);
        f("mlp_scale", mlp.scale);
        f("mlp_shift", mlp.shift);
        for (std::size_t e = 0; e < hidden.size(); ++e) {
            f("hidden_scale" + (hidden.size() > 1 ? "." + std::to_string(e) : std::string()), hidden[e]);
        }
    }

    /// Moves scales that are nearly 0 away from it, with their sign; blocks are divided by them. Those of `hidden`
    /// become positive, since ReLU lets no others pass.
    void keep_invertible() {
        auto const least = Scalar(1e-2);
        for (vector_type* const scale : {&attention.scale, &context.scale, &key_scale, &mlp.scale}) {
            *scale = scale->unaryExpr([&](Scalar s) { return std::copysign(std::max(std::abs(s), least), s); });
        }
        for (vector_type& scale : hidden) {
            scale = scale.cwiseMax(least);
        }
    }

    /// Zeros in the same shape.
    equivalent_transform zeros() const {
        equivalent_transform z = *this;
        z.for_each_part([](std::string const&, vector_type& part) { part.setZero(); });
        return z;
    }

    bool empty() const {
        bool none = attention.scale.size() + context.scale.size() + key_scale.size() + mlp.scale.size() == 0;
        for (auto const& scale : hidden) {
            none = none && scale.size() == 0;
        }
        return none;
    }

    /// The block that computes the same. Biases are made where a shift needs one.
    dense_block<Scalar> apply(dense_block<Scalar> b) const {
        dense_block<Scalar> const floats = b;
        apply_to_norms(b);
        for (layer_place const place : b.places()) {
            b.linear(place) = made(floats, place);
        }
        return b;
    }

    /// The norms of that block.
    void apply_to_norms(dense_block<Scalar>& b) const {
        write_norm(attention, b.attention_norms.input);
        write_norm(mlp, b.mlp_norms.input);
    }

    /// One of its linear layers.
    dense_linear<Scalar> made(dense_block<Scalar> const& b, layer_place place) const {
        dense_linear<Scalar> layer = b.linear(place);
        auto const reads = read_by(b, place);
        auto const writes = written_by(b, place);
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
    void backward(dense_block<Scalar> const& b, layer_place place, dense_linear<Scalar> const& made,
                  dense_linear<Scalar> const& g, equivalent_transform& sum) const {
        auto const reads = read_by(b, place);
        auto const writes = written_by(b, place);
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
            slopes.shift = b.linear(place).weight.transpose() * bias;
        }
        add_read(b, place, std::move(slopes), sum);

        if (place.role == linear_role::value) {
            add({context.scale.size() > 0 ? vector_type(written.cwiseQuotient(context.scale)) : vector_type{},
                 context.shift.size() > 0 ? vector_type(-bias) : vector_type{}},
                sum.context);
        } else if (place.role == linear_role::up && hidden_scale(place.expert).size() > 0) {
            sum.hidden[static_cast<std::size_t>(place.expert)] += written.cwiseQuotient(hidden_scale(place.expert));
        } else if ((place.role == linear_role::query || place.role == linear_role::key) && key_scale.size() > 0) {
            // Keys are written with 1 / s.
            vector_type const of_keys =
                place.role == linear_role::query ? sum_over_queries(written, b.heads) : vector_type(-written);
            for (index_t c = 0; c < of_keys.size(); ++c) {
                index_t const i = key_index(b, c);
                sum.key_scale(i) += of_keys(c) / key_scale(i);
            }
        }
    }

    /// Adds to `sum` what the gradients `g` with respect to the norms of the transformed block `made` say.
    void backward(dense_block<Scalar> const& made, norm_gradients<Scalar> const& g, equivalent_transform& sum) const {
        norm_backward(attention, made.attention_norms.input, g.attention, sum.attention);
        norm_backward(mlp, made.mlp_norms.input, g.mlp, sum.mlp);
    }

private:
    vector_type const& hidden_scale(index_t expert) const {
        static vector_type const none;
        return static_cast<std::size_t>(expert) < hidden.size() ? hidden[static_cast<std::size_t>(expert)] : none;
    }

    /// What a linear layer reads, and what it writes.
    channels read_by(dense_block<Scalar> const& b, layer_place place) const {
        switch (site_read_by(b, place.role)) {
        case site::attention_input:
            return attention;
        case site::mlp_input:
            return mlp;
        case site::context:
            return {for_queries(context.scale, b.heads), for_queries(context.shift, b.heads)};
        default:
            return {hidden_scale(place.expert), {}};
        }
    }
    channels written_by(dense_block<Scalar> const& b, layer_place place) const {
        switch (place.role) {
        case linear_role::query:
            return {for_queries(of_keys(b), b.heads), {}};
        case linear_role::key:
            return {of_keys(b).cwiseInverse(), {}};
        case linear_role::value:
            return context;
        case linear_role::up:
            return {hidden_scale(place.expert), {}};
        default:
            return {};
        }
    }

    void add_read(dense_block<Scalar> const& b, layer_place place, channels slopes, equivalent_transform& sum) const {
        switch (site_read_by(b, place.role)) {
        case site::attention_input:
            return add(slopes, sum.attention);
        case site::mlp_input:
            return add(slopes, sum.mlp);
        case site::context:
            return add({sum_over_queries(slopes.scale, b.heads), sum_over_queries(slopes.shift, b.heads)}, sum.context);
        default:
            if (slopes.scale.size() > 0) {
                sum.hidden[static_cast<std::size_t>(place.expert)] += slopes.scale;
            }
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

    static void write_norm(channels const& c, std::optional<basic_norm_layer<Scalar>>& norm) {
        DETENT_EXPECTS(norm || c.scale.size() == 0);
        if (norm) {
            write(c, norm->weight, norm->bias);
        }
    }

    static void norm_backward(channels const& c, std::optional<basic_norm_layer<Scalar>> const& made,
                              std::optional<basic_norm_layer<Scalar>> const& g, channels& sum) {
        if (c.scale.size() == 0) {
            return;
        }
        vector_type written = -g->weight.cwiseProduct(made->weight);
        if (made->bias.size() > 0) {
            written -= g->bias.cwiseProduct(made->bias);
        }
        add({written.cwiseQuotient(c.scale),
             c.shift.size() > 0 ? vector_type(-g->bias.cwiseQuotient(c.scale)) : vector_type{}},
            sum);
    }

    static void add(channels const& slopes, channels& sum) {
        if (slopes.scale.size() > 0) {
            sum.scale += slopes.scale;
        }
        if (slopes.shift.size() > 0) {
            sum.shift += slopes.shift;
        }
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
