// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/io/matmul_nbits.hpp"
#include "detent/io/onnx_writer.hpp"
#include "detent/model/block.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/exact_numbers.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/model/save_onnx.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/rotary_law.hpp"

namespace detent::inline DETENT_ABI {

/// The nodes of a decoder. A value is the name of a tensor; hidden states are (batch, sequence, feature).
class onnx_graph {
public:
    using name = std::string;

    onnx_graph(io::onnx_writer& file, decoder const& model) : file_(file), model_(model) {}

    void add() {
        auto const& c = model_.configuration;
        file_.input("input_ids", io::onnx_type::i64, {"batch", "sequence"});
        length_ = node("Gather", {node("Shape", {"input_ids"}), integer(1)});
        positions_ = node("Range", {integer(0), length_, integer(1)});
        name x = embed();
        for (block const& b : model_.blocks) {
            x = add_block(b, x);
        }
        scope_ = "head";
        if (model_.final_norm) {
            x = norm(*model_.final_norm, x);
        }
        if (model_.project_out) {
            x = linear(*model_.project_out, x);
        }
        x = model_.lm_head ? linear(*model_.lm_head, x) : product(embeddings_, x);
        x = scaled(x, c.logit_multiplier);
        if (c.logit_cap != 0) {
            x = capped(x, c.logit_cap);
        }
        file_.output("logits", x, io::onnx_type::f32, {"batch", "sequence", c.vocabulary});
    }

private:
    /// A weight as a file has it, perhaps in 16 bits.
    struct stored_weight {
        name tensor;
        bool is_f32 = true;
    };

    // Operators

    name node(std::string_view type, std::vector<name> const& inputs,
              std::vector<io::onnx_attribute> const& attributes = {}) {
        return file_.node(type, inputs, scope_, attributes);
    }
    name integer(std::int64_t value) { return file_.scalar(value); }
    name number(double value) { return file_.scalar(static_cast<float>(value)); }
    name add(name const& a, name const& b) { return node("Add", {a, b}); }
    name times(name const& a, name const& b) { return node("Mul", {a, b}); }
    name scaled(name const& x, double factor) { return factor == 1 ? x : times(x, number(factor)); }
    name capped(name const& x, double cap) { return scaled(node("Tanh", {node("Div", {x, number(cap)})}), cap); }
    name reshape(name const& x, std::vector<std::int64_t> const& shape) {
        return node("Reshape", {x, file_.list(shape)}); // where 0 is the extent that there is
    }
    name transpose(name const& x, std::vector<std::int64_t> const& order) {
        return node("Transpose", {x}, {{"perm", order}});
    }
    name unsqueeze(name const& x, std::int64_t axis) { return node("Unsqueeze", {x, file_.list({axis})}); }
    name cast(name const& x, io::onnx_type type) {
        return node("Cast", {x}, {{"to", static_cast<std::int64_t>(type)}});
    }
    name mean(name const& x) { return node("ReduceMean", {x}, {{"axes", std::vector<std::int64_t>{-1}}}); }

    // Layers

    /// A matrix of floats, in 16 bits where that has all of its numbers. It must live until the file is saved.
    stored_weight weight(name const& called, matrix const& w) {
        std::span const all(w.data(), static_cast<std::size_t>(w.size()));
        auto const stored = [&](io::onnx_type type, auto const& bytes) {
            return file_.tensor(called, type, {w.rows(), w.cols()}, [&w, bytes](io::onnx_writer::sink const& to) {
                for (index_t row = 0; row < w.rows(); ++row) {
                    to(bytes(std::span(w.data() + row * w.cols(), static_cast<std::size_t>(w.cols()))));
                }
            });
        };
        if (are_numbers_of<half>(all)) {
            return {stored(io::onnx_type::f16, bytes_as<half>), false};
        }
        if (are_numbers_of<bfloat16>(all)) {
            return {stored(io::onnx_type::bf16, bytes_as<bfloat16>), false};
        }
        return {stored(io::onnx_type::f32, bytes_as<float>)};
    }

    name floats_of(stored_weight const& w, name const& taken) {
        return w.is_f32 ? taken : cast(taken, io::onnx_type::f32);
    }

    /// x times the transposed weight (out, in).
    name product(stored_weight const& w, name const& x) {
        return node("MatMul", {x, transpose(floats_of(w, w.tensor), {1, 0})});
    }

    name vector(name const& called, float_vector const& v, std::vector<index_t> const& shape) {
        return file_.tensor(called, shape, std::vector<float>(v.begin(), v.end()));
    }

    name linear(linear_layer const& layer, name const& x) {
        scope_ = layer.name;
        auto const* const packed = std::get_if<packed_matrix>(&layer.weight);
        name const y = packed != nullptr ? io::add_matmul_nbits(file_, *packed, layer.name, x)
                                         : product(weight(layer.name + ".weight", std::get<matrix>(layer.weight)), x);
        auto const& bias = layer.bias;
        return bias.size() == 0 ? y : add(y, vector(layer.name + ".bias", bias, {bias.size()}));
    }

    /// The norm of the last axis of x, which is a head's for norms of heads.
    name norm(norm_layer const& n, name x) {
        scope_ = n.name;
        auto const parameters = [&](float_vector const& v, char const* called) {
            index_t const width = n.width > 0 ? n.width : v.size();
            bool const one = v.size() == width;
            return vector(n.name + called, v, one ? std::vector{width} : std::vector{v.size() / width, width});
        };
        if (n.type == nn::norm_kind::layer) {
            x = node("Sub", {x, mean(x)});
        }
        name r;
        if (n.type == nn::norm_kind::rms || n.type == nn::norm_kind::layer) {
            r = node("Reciprocal", {node("Sqrt", {add(mean(times(x, x)), number(n.eps))})});
        }
        if (n.weight.size() > 0) {
            x = times(x, parameters(n.weight, ".weight"));
        }
        x = r.empty() ? x : times(x, r);
        return n.bias.size() > 0 ? add(x, parameters(n.bias, ".bias")) : x;
    }

    name optional_norm(std::optional<norm_layer> const& n, name const& x) { return n ? norm(*n, x) : x; }

    name activate(nn::activation kind, name const& x) {
        using enum nn::activation;
        auto const sigmoid = [&](name const& of) { return node("Sigmoid", {of}); };
        switch (kind) {
        case silu:
            return times(x, sigmoid(x));
        case quick_gelu:
            return times(x, sigmoid(times(x, number(1.702))));
        case gelu: {
            name const phi = add(node("Erf", {times(x, number(1 / std::numbers::sqrt2))}), number(1));
            return times(times(x, number(0.5)), phi);
        }
        case gelu_tanh: { // x sigmoid(2 z) = 0.5 x (1 + tanh(z))
            name const cube = times(times(times(x, x), x), number(0.044715));
            return times(x, sigmoid(times(add(x, cube), number(1.5957691216057308))));
        }
        case relu:
            return node("Relu", {x});
        case relu_squared: {
            name const y = node("Relu", {x});
            return times(y, y);
        }
        case tanh:
            return node("Tanh", {x});
        case mish:
            return times(x, node("Tanh", {node("Softplus", {x})}));
        case identity:
            break;
        }
        return x;
    }

    // Decoder

    name embed() {
        auto const& c = model_.configuration;
        scope_ = model_.embeddings.name;
        embeddings_ = weight(scope_ + ".weight", std::get<matrix>(model_.embeddings.weight));
        name x = floats_of(embeddings_, node("Gather", {embeddings_.tensor, "input_ids"}));
        if (model_.project_in) {
            x = linear(*model_.project_in, x);
        }
        x = scaled(x, c.embedding_multiplier);
        if (c.learned_positions) {
            scope_ = model_.prefix + c.names.positions;
            auto const table = weight(scope_ + ".weight", model_.position_embeddings);
            name const rows = add(positions_, integer(c.position_offset));
            x = add(x, floats_of(table, node("Gather", {table.tensor, rows})));
        }
        return optional_norm(model_.embedding_norm, x);
    }

    name add_block(block const& b, name const& x) {
        name const read = optional_norm(b.attention_norms.input, x);
        name const middle = branch(b, b.attention_norms, x, linear(b.output, attention(b, read)));
        name const from = b.parallel ? x : middle;
        name const mlp_read = b.shares_norm() ? read : optional_norm(b.mlp_norms.input, from);
        auto const& mlp = b.mlps.front();
        name hidden = linear(mlp.up, mlp_read);
        if (mlp.gate) {
            name const gate = linear(*mlp.gate, mlp_read);
            scope_ = mlp.up.name;
            hidden = gated(b.gate_form, gate, hidden);
        } else {
            hidden = activate(b.gate_form.kind, hidden);
        }
        return branch(b, b.mlp_norms, middle, linear(mlp.down, hidden));
    }

    name gated(nn::gate_form const& form, name gate, name up) {
        if (form.limit > 0) {
            gate = node("Min", {gate, number(form.limit)});
            up = node("Clip", {up, number(-form.limit), number(form.limit)});
        }
        if (form.up_offset != 0) {
            up = add(up, number(form.up_offset));
        }
        return times(activate(form.kind, gate), up);
    }

    name branch(block const& b, branch_norm_layers<float> const& norms, name const& x, name made) {
        made = add(scaled(optional_norm(norms.output, made), b.residual), x);
        return optional_norm(norms.sum, made);
    }

    // Attention. Heads of queries are (key head, query of it), so that keys and values are not repeated.

    name attention(block const& b, name const& x) {
        auto const [heads, kv_heads, width, bits] = b.heads;
        std::int64_t const shared = heads / kv_heads;
        name q = heads_of(b, b.query, b.query_norm, x, heads);
        name k = heads_of(b, b.key, b.key_norm, x, kv_heads);
        name v = linear(b.value, x);
        scope_ = b.query.name;
        if (b.rotary) {
            q = rotated(q, *b.rotary, width);
            k = rotated(k, *b.rotary, width);
        }
        q = transpose(reshape(q, {0, 0, kv_heads, shared, width}), {0, 2, 3, 1, 4});
        k = transpose(reshape(k, {0, 0, kv_heads, 1, width}), {0, 2, 3, 4, 1});
        v = transpose(reshape(v, {0, 0, kv_heads, 1, width}), {0, 2, 3, 1, 4});
        name s = scaled(node("MatMul", {q, k}), b.attention.scale); // (batch, key head, query of it, query, key)
        if (b.attention.soft_cap > 0) {
            s = capped(s, b.attention.soft_cap);
        }
        if (!b.attention.slopes.empty()) {
            name const slopes = file_.tensor("slopes", {kv_heads, shared, 1, 1}, b.attention.slopes);
            s = add(s, times(slopes, cast(distances(), io::onnx_type::f32)));
        }
        name const p = node("Softmax", {add(s, mask(b.attention.window))}, {{"axis", std::int64_t{-1}}});
        return reshape(transpose(node("MatMul", {p, v}), {0, 3, 1, 2, 4}), {0, 0, -1});
    }

    /// Queries or keys as (batch, sequence, head, feature), with their norm.
    name heads_of(block const& b, linear_layer const& layer, std::optional<norm_layer> const& n, name x,
                  index_t heads) {
        x = linear(layer, x);
        bool const of_heads = n && n->width > 0;
        x = of_heads ? x : optional_norm(n, x);
        scope_ = layer.name;
        x = reshape(x, {0, 0, heads, b.heads.head_dim});
        return of_heads ? norm(*n, x) : x;
    }

    /// The position of each key less that of each query, (query, key).
    name distances() {
        if (distances_.empty()) {
            distances_ = node("Sub", {unsqueeze(positions_, 0), unsqueeze(positions_, 1)});
        }
        return distances_;
    }

    /// What makes keys invisible that are after a query or out of its window, (query, key).
    name mask(index_t window) {
        auto& made = masks_[window];
        if (made.empty()) {
            name visible = node("LessOrEqual", {distances(), integer(0)});
            if (window > 0) {
                visible = node("And", {visible, node("Greater", {distances(), integer(-window)})});
            }
            made = node("Where", {visible, number(0), number(-std::numeric_limits<double>::infinity())});
        }
        return made;
    }

    /// What rotation makes of heads: x cos + (x of the other feature of a pair) sin.
    struct rotation_tables {
        name cos, sin; // (sequence, 1, feature), of the first features of a head
        name other;    // (feature)
    };

    name rotated(name const& x, nn::rotary_law const& law, index_t width) {
        auto const& tables = tables_of(law, width);
        name const other = node("Gather", {x, tables.other}, {{"axis", std::int64_t{-1}}});
        return add(times(x, tables.cos), times(other, tables.sin));
    }

    /// Angles are doubles, as those of `nn::rotation`. ONNX Runtime has no cosine of these, but the sine of one a
    /// quarter of a turn ahead. Features that stay have an angle of 0.
    rotation_tables const& tables_of(nn::rotary_law const& law, index_t width) {
        for (auto const& [known, tables] : rotations_) {
            if (known == law) {
                return tables;
            }
        }
        auto const rotary = nn::rotary_of(law, 1);
        auto const features = static_cast<std::size_t>(width);
        std::vector<double> turns(features), cos_factors(features, 1.0), sin_factors(features);
        std::vector<std::int64_t> other(features);
        for (std::size_t i = 0; i < features; ++i) {
            other[i] = static_cast<std::int64_t>(i);
        }
        std::size_t const pairs = rotary.frequencies().size();
        for (std::size_t i = 0; i < pairs; ++i) {
            std::size_t const a = rotary.interleaved() ? 2 * i : i, b = rotary.interleaved() ? 2 * i + 1 : i + pairs;
            turns[a] = turns[b] = rotary.frequencies()[i];
            cos_factors[a] = cos_factors[b] = sin_factors[b] = rotary.factor();
            sin_factors[a] = -rotary.factor();
            other[a] = static_cast<std::int64_t>(b);
            other[b] = static_cast<std::int64_t>(a);
        }
        scope_ = "rotary";
        name const angles =
            times(unsqueeze(cast(positions_, io::onnx_type::f64), 1), file_.tensor("rotary.turns", {width}, turns));
        auto const table = [&](name const& of, std::vector<double> const& factors) {
            name const sines = times(node("Sin", {of}), file_.tensor("rotary.factors", {width}, factors));
            return unsqueeze(cast(sines, io::onnx_type::f32), 1);
        };
        name const quarter = file_.tensor("rotary.quarter", {1}, std::vector<double>{std::numbers::pi / 2});
        rotations_.push_back({law,
                              {table(add(angles, quarter), cos_factors), table(angles, sin_factors),
                               file_.tensor("rotary.other", {width}, other)}});
        return rotations_.back().second;
    }

    io::onnx_writer& file_;
    decoder const& model_;
    name scope_; // how the names of nodes begin
    name length_, positions_, distances_;
    stored_weight embeddings_;
    std::map<index_t, name> masks_;
    std::vector<std::pair<nn::rotary_law, rotation_tables>> rotations_;
};

/// Why a block cannot be saved; empty where it can.
inline std::string onnx_block_obstacle(block const& b, model_configuration const& c) {
    auto const about = [&](std::string const& problem) {
        return "the block of layer '" + b.query.name + "' " + problem;
    };
    if (b.router || b.shared_gate || b.mlps.size() > 1) {
        return about("has experts, which are not written for ONNX Runtime");
    }
    if (!b.attention.sinks.empty()) {
        return about("has sinks of attention, which are not written for ONNX Runtime");
    }
    if (b.head_input || b.heads.probability_bits > 0) {
        return about("rounds what attention reads");
    }
    bool const any = c.any_length || c.max_positions <= 0;
    if (b.rotary && !nn::same_frequencies(*b.rotary, 1, any ? std::numeric_limits<index_t>::max() : c.max_positions)) {
        return about("has rotary positions that depend on the length of the sequence");
    }
    return {};
}

DETENT_INLINE std::string onnx_obstacle(decoder const& model) {
    auto const of_layer = [](linear_layer const& layer) -> std::string {
        if (layer.input) {
            return "layer '" + layer.name + "' rounds its input, which ONNX Runtime's products do not";
        }
        auto const* const packed = std::get_if<packed_matrix>(&layer.weight);
        auto const obstacle = packed != nullptr ? io::matmul_nbits_obstacle(*packed) : "";
        return obstacle.empty() ? "" : "layer '" + layer.name + "' has no product in ONNX Runtime: " + obstacle;
    };
    if (std::holds_alternative<packed_matrix>(model.embeddings.weight)) {
        return "the table of embeddings is quantized, which is not written for ONNX Runtime";
    }
    std::string obstacle;
    for (auto const* layer : {&model.project_in, &model.project_out, &model.lm_head}) {
        obstacle = obstacle.empty() && *layer ? of_layer(**layer) : obstacle;
    }
    for (block const& b : model.blocks) {
        obstacle = obstacle.empty() ? onnx_block_obstacle(b, model.configuration) : obstacle;
        for (layer_place const place : b.places()) {
            obstacle = obstacle.empty() ? of_layer(b.linear(place)) : obstacle;
        }
    }
    return obstacle;
}

DETENT_INLINE void save_onnx(decoder const& model, std::filesystem::path const& file, std::string const& description,
                             index_t largest_file) {
    if (auto const obstacle = onnx_obstacle(model); !obstacle.empty()) {
        throw error(file.string(), obstacle);
    }
    io::onnx_writer writer;
    writer.note("description", description);
    onnx_graph(writer, model).add();
    writer.save(file, largest_file);
}

} // namespace detent::inline DETENT_ABI
