// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/model/block.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"

namespace detent::inline DETENT_ABI {

/// Where the weights of a decoder come from; all throw `error` when there is no such tensor or its shape is another.
/// `tensor` answers a whole tensor, a vector as one column; `linear` the weight, the bias if there is to be one, and
/// how inputs are rounded, of a layer of shape (out, in) whose name and place in the checkpoint are known; `contains`
/// tells whether there is such a tensor.
template <class S>
concept WeightSource = requires(S& source, std::string const& name, extents shape, bool biased, linear_layer layer) {
    { source.tensor(name, shape) } -> std::convertible_to<matrix>;
    { source.linear(layer, shape, biased) } -> std::convertible_to<linear_layer>;
    { source.contains(name) } -> std::convertible_to<bool>;
};

/// Builds the parts of the model that a configuration describes, asking a source for every weight by the name that it
/// has in the checkpoint. Everything throws what the source throws.
template <WeightSource Source> class model_assembly {
public:
    model_assembly(model_configuration const& c, std::string prefix, Source& source)
        : c_(c), prefix_(std::move(prefix)), source_(source) {}

    /// A linear layer of this whole name and shape (out, in).
    linear_layer linear(std::string name, extents shape, bool biased, bool in_block = true) {
        return source_.linear({.name = std::move(name), .transposed = in_block && c_.names.transposed}, shape, biased);
    }

    /// A norm of this whole name.
    norm_layer norm(std::string const& name, index_t features) {
        if (!c_.norm_weights) {
            return {.name = name, .type = c_.norm, .weight = {}, .bias = {}, .eps = c_.norm_eps};
        }
        norm_layer layer{.name = name,
                         .type = c_.norm,
                         .weight = source_.tensor(name + "." + c_.names.norm_weight, {features, 1}),
                         .eps = c_.norm_eps};
        layer.weight.array() += c_.norm_offset;
        if (c_.norm_bias) {
            layer.bias = source_.tensor(name + "." + c_.names.norm_bias, {features, 1});
        }
        return layer;
    }

    /// Block `i`.
    block make_block(index_t i) {
        auto const& n = c_.names;
        auto const& here = c_.layers[static_cast<std::size_t>(i)];
        std::string const name = prefix_ + n.blocks + std::to_string(i) + ".";
        block b;
        b.attention_norms = branch_norms(name, n.attention_norm, n.attention_output_norm, false);
        make_attention(b, name);
        b.mlp_norms = branch_norms(name, n.mlp_norm, n.mlp_output_norm, c_.parallel && c_.shared_norm);
        if (here.experts) {
            make_experts(b, name);
        } else {
            b.mlps.push_back(make_mlp(name, c_.intermediate));
        }
        b.heads = c_.heads;
        b.attention.window = here.window;
        b.attention.scale /= here.score_divisor;
        b.rotary = here.rotary;
        b.gate_form = c_.gate;
        b.parallel = c_.parallel;
        b.residual = static_cast<float>(c_.residual_multiplier);
        return b;
    }

private:
    /// A layer whose rows are some of those of a tensor.
    linear_layer part(char const* role, stored_rows rows, extents shape, bool biased) {
        return source_.linear({.name = rows.tensor + "." + role, .stored = rows, .transposed = c_.names.transposed},
                              shape, biased);
    }

    norm_layer scale(std::string const& name) {
        return {.name = name,
                .type = nn::norm_kind::scale,
                .weight = source_.tensor(name + "." + c_.names.scale_weight, {c_.hidden, 1})};
    }

    branch_norm_layers<float> branch_norms(std::string const& block, std::string const& input,
                                           std::string const& output, bool shared) {
        branch_norm_layers<float> norms;
        if (c_.norms.input && !shared) {
            norms.input = norm(block + input, c_.hidden);
        }
        if (c_.norms.output) {
            norms.output = c_.norms.scale ? scale(block + output) : norm(block + output, c_.hidden);
        }
        if (c_.norms.sum) {
            norms.sum = norm(block + input, c_.hidden);
        }
        return norms;
    }

    /// The norm of queries or keys: one weight for all heads, one for each, or over the features of all heads.
    norm_layer head_norm(std::string const& name, index_t heads) {
        bool const layer = c_.query_key_norm == nn::norm_kind::layer;
        index_t const hd = c_.heads.head_dim;
        norm_layer n{.name = name, .type = *c_.query_key_norm, .eps = c_.norm_eps};
        if (c_.head_norm == head_norm_weights::all_heads) {
            n.weight = source_.tensor(name + ".weight", {heads * hd, 1});
        } else {
            n.width = hd;
            if (c_.head_norm == head_norm_weights::each) {
                matrix const weights = source_.tensor(name + ".weight", {heads, hd}); // (head, feature)
                n.weight = Eigen::Map<float_vector const>(weights.data(), weights.size());
            } else {
                n.weight = source_.tensor(name + ".weight", {hd, 1});
            }
        }
        n.weight.array() += c_.norm_offset;
        if (layer && c_.norm_bias) {
            n.bias = source_.tensor(name + ".bias", {hd, 1});
        }
        return n;
    }

    void make_attention(block& b, std::string const& name) {
        auto const& n = c_.names;
        index_t const hd = c_.heads.head_dim;
        index_t const queries = c_.heads.heads * hd;
        index_t const keys = c_.heads.kv_heads * hd;
        if (n.qkv.empty()) {
            b.query = linear(name + n.query, {queries, c_.hidden}, c_.qkv_bias);
            b.key = linear(name + n.key, {keys, c_.hidden}, c_.qkv_bias);
            b.value = linear(name + n.value, {keys, c_.hidden}, c_.qkv_bias);
        } else {
            stored_rows all{.tensor = name + n.qkv, .dot = n.qkv_dot, .rows = queries + 2 * keys};
            bool const stacked = n.qkv_order == fused_order::stacked;
            index_t const group = stacked ? queries : queries / c_.heads.kv_heads; // rows of query that are together
            index_t const one = stacked ? keys : hd;                               // of key, and of value
            all.stride = group + 2 * one;
            auto const rows = [&](index_t first, index_t run) {
                stored_rows r = all;
                r.first = first;
                r.run = run;
                return r;
            };
            b.query = part("query", rows(0, group), {queries, c_.hidden}, c_.qkv_bias);
            b.key = part("key", rows(group, one), {keys, c_.hidden}, c_.qkv_bias);
            b.value = part("value", rows(group + one, one), {keys, c_.hidden}, c_.qkv_bias);
        }
        b.output = linear(name + n.output, {c_.hidden, queries}, c_.output_bias);
        b.attention = c_.attention;
        if (c_.query_key_norm) {
            b.query_norm = head_norm(name + n.query_norm, c_.heads.heads);
            b.key_norm = head_norm(name + n.key_norm, c_.heads.kv_heads);
        }
        if (!n.sinks.empty()) {
            matrix const sinks = source_.tensor(name + n.sinks, {c_.heads.heads, 1});
            b.attention.sinks.assign(sinks.data(), sinks.data() + sinks.size());
        }
    }

    feed_forward_layers<linear_layer> make_mlp(std::string const& name, index_t width) {
        auto const& n = c_.names;
        if (!n.gate_up.empty()) {
            return stacked_mlp(name + n.gate_up, name + n.down, width, c_.mlp_bias);
        }
        feed_forward_layers<linear_layer> mlp;
        if (c_.gated) {
            mlp.gate = linear(name + n.gate, {width, c_.hidden}, c_.mlp_bias);
        }
        mlp.up = linear(name + n.up, {width, c_.hidden}, c_.mlp_bias);
        mlp.down = linear(name + n.down, {c_.hidden, width}, c_.mlp_bias);
        return mlp;
    }

    /// A network whose gate and up are one tensor, one after the other.
    feed_forward_layers<linear_layer> stacked_mlp(std::string const& gate_up, std::string const& down, index_t width,
                                                  bool biased) {
        stored_rows rows{.tensor = gate_up, .rows = 2 * width, .run = width, .stride = 2 * width};
        feed_forward_layers<linear_layer> mlp;
        mlp.gate = part("gate", rows, {width, c_.hidden}, biased);
        rows.first = width;
        mlp.up = part("up", rows, {width, c_.hidden}, biased);
        mlp.down = linear(down, {c_.hidden, width}, biased);
        return mlp;
    }

    feed_forward_layers<linear_layer> make_shared_expert(std::string const& name, index_t width) {
        auto const& n = c_.names;
        bool const biased = c_.experts->bias;
        if (!n.shared_gate_up.empty()) {
            return stacked_mlp(name + n.shared_gate_up, name + n.shared_down, width, biased);
        }
        std::string const shared = name + n.shared_expert + ".";
        return {linear(shared + n.expert_gate, {width, c_.hidden}, biased),
                linear(shared + n.expert_up, {width, c_.hidden}, biased),
                linear(shared + n.expert_down, {c_.hidden, width}, biased)};
    }

    void make_experts(block& b, std::string const& name) {
        auto const& n = c_.names;
        auto const& e = *c_.experts;
        b.routing = e.routing;
        b.router = linear(name + n.router, {e.count, c_.hidden}, e.router_bias);
        if (!n.router_correction.empty()) {
            matrix const correction = source_.tensor(name + n.router_correction, {e.count, 1});
            b.routing.correction.assign(correction.data(), correction.data() + correction.size());
        }
        for (index_t i = 0; i < e.count; ++i) {
            b.mlps.push_back(make_expert(name, i));
        }
        if (e.shared_intermediate > 0) {
            b.mlps.push_back(make_shared_expert(name, e.shared_intermediate));
            if (e.shared_gate) {
                b.shared_gate = linear(name + n.shared_gate, {1, c_.hidden}, false);
            }
        }
    }

    /// An expert, in tensors of its own or in those of all: gate and up stacked, or as gpt-oss has them, in turns.
    feed_forward_layers<linear_layer> make_expert(std::string const& name, index_t i) {
        auto const& n = c_.names;
        auto const& e = *c_.experts;
        index_t const width = e.intermediate;
        auto const layer = [&](std::string const& role, std::string const& all, stored_rows rows, extents shape) {
            linear_layer expert{.name = name + n.experts + std::to_string(i) + "." + role};
            if (!all.empty() && source_.contains(name + all)) {
                rows.tensor = name + all;
                rows.experts = e.count;
                rows.expert = i;
                expert.stored = rows;
                expert.transposed = n.fused_transposed;
            }
            return source_.linear(std::move(expert), shape, e.bias);
        };
        stored_rows gate{.rows = 2 * width, .run = width, .stride = 2 * width};
        stored_rows up = gate;
        up.first = width;
        if (n.fused_transposed) { // in turns
            gate.run = up.run = up.first = 1;
            gate.stride = up.stride = 2;
        }
        return {layer(n.expert_gate, n.fused_gate_up, gate, {width, c_.hidden}),
                layer(n.expert_up, n.fused_gate_up, up, {width, c_.hidden}),
                layer(n.expert_down, n.fused_down, {.rows = c_.hidden, .run = c_.hidden, .stride = c_.hidden},
                      {c_.hidden, width})};
    }

    model_configuration const& c_;
    std::string prefix_;
    Source& source_;
};

/// Builds the decoder that `c` describes, but for its blocks, asking `source` for every weight by its name after
/// `prefix`. Throws what `source` throws.
template <WeightSource Source>
decoder assemble_ends(model_configuration const& c, std::string const& prefix, Source& source) {
    model_assembly<Source> parts(c, prefix, source);
    auto const& n = c.names;
    decoder model;
    model.configuration = c;
    model.prefix = prefix;
    model.embeddings = parts.linear(prefix + n.embeddings, {c.vocabulary, c.embedding_width}, false, false);
    if (c.learned_positions) {
        model.position_embeddings =
            source.tensor(prefix + n.positions + ".weight", {c.max_positions + c.position_offset, c.hidden});
    }
    if (c.embedding_width != c.hidden) {
        model.project_in = parts.linear(prefix + n.project_in, {c.hidden, c.embedding_width}, false);
        model.project_out = parts.linear(prefix + n.project_out, {c.embedding_width, c.hidden}, false);
    }
    if (c.embedding_norm) {
        model.embedding_norm = parts.norm(prefix + n.embedding_norm, c.hidden);
    }
    if (c.final_norm) {
        model.final_norm = parts.norm(prefix + n.final_norm, c.hidden);
    }
    // A checkpoint that has a head of its own is followed, whatever its configuration says.
    if (!c.tied_embeddings || source.contains(n.head + ".weight")) {
        model.lm_head = parts.linear(n.head, {c.vocabulary, c.embedding_width}, c.head_bias, false);
    }
    return model;
}

/// Builds the whole decoder.
template <WeightSource Source>
decoder assemble_decoder(model_configuration const& c, std::string const& prefix, Source& source) {
    decoder model = assemble_ends(c, prefix, source);
    model_assembly<Source> parts(c, prefix, source);
    for (index_t i = 0; i < std::ssize(c.layers); ++i) {
        model.blocks.push_back(parts.make_block(i));
    }
    return model;
}

} // namespace detent::inline DETENT_ABI
