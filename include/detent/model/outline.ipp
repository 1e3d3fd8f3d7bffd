// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/assemble_decoder.hpp"
#include "detent/model/outline.hpp"
#include "detent/model/weak_plan.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/parse_spec.hpp"

namespace detent::inline DETENT_ABI {

/// The steps that `s` puts before the product, of factors 1 and the order that there is.
DETENT_INLINE input_map outline_map(spec const& s, extents tile, index_t in) {
    input_map map;
    auto const scaled = [&] { map.then(diagonal{std::vector<float>(static_cast<std::size_t>(in), 1.0F)}, in); };
    if (s.smooth && !s.input.folded) {
        scaled();
    }
    if (s.power_of_two && !s.input.folded) {
        scaled();
    }
    if (s.hadamard > 0) {
        map.then(block_hadamard{std::min(s.hadamard, in & -in)}, in);
    }
    using kind = spec::solver_kind;
    bool const sweeps = s.solver == kind::gptq || s.solver == kind::gptaq || s.solver == kind::qronos;
    auto const& how = s.gptq_options;
    bool const placed = s.clip || s.learning || s.super_blocks; // scales are given
    bool const swept_in_order = sweeps && how.activation_order && !how.static_groups;
    bool const weak_last = s.weak.columns > 0;
    if ((swept_in_order || weak_last) && !placed && tile.cols < in) {
        std::vector<std::int32_t> order(static_cast<std::size_t>(in));
        std::iota(order.rbegin(), order.rend(), 0);
        map.then(permutation{std::move(order)}, in);
    }
    return map;
}

/// A few weights rounded as `s` says: all of a packed matrix that does not depend on the weights.
DETENT_INLINE packed_matrix outline_sample(spec const& s) {
    spec plain;
    plain.text = s.text;
    plain.grid = s.grid;
    plain.format = s.format;
    matrix w(2, 64);
    for (index_t k = 0; k < w.cols(); ++k) {
        w(0, k) = std::sin(static_cast<float>(k));
        w(1, k) = std::cos(static_cast<float>(k));
    }
    return quantize(w, plain).weights;
}

DETENT_INLINE packed_matrix outline_like(packed_matrix sample, spec const& s, extents shape) {
    packed_matrix w = std::move(sample);
    w.extent = shape;
    w.tile = s.granularity.tile(shape);
    w.codes = {};
    w.scales.tiles = {ceil_div(shape.rows, w.tile.rows), ceil_div(shape.cols, w.tile.cols)};
    w.scales.scales.clear();
    w.scales.zeros.resize(w.scales.zeros.empty() ? 0 : 1);
    std::fill(w.scales.zeros.begin(), w.scales.zeros.end(), s.super_blocks ? 0.5F : 1.0F);
    w.map = outline_map(s, w.tile, shape.cols);
    std::vector<std::int32_t> columns(static_cast<std::size_t>(s.weak.columns));
    std::iota(columns.begin(), columns.end(), 0);
    auto const format = s.format == float_format::bf16 ? float_format::bf16 : float_format::f16;
    w.weak = weak_columns(std::move(columns), 0, format);
    return w;
}

DETENT_INLINE packed_matrix outline(spec const& s, extents shape) { return outline_like(outline_sample(s), s, shape); }

/// Answers weights whose numbers nobody reads.
struct outline_source {
    std::function<bool(std::string const&)> const& exists;

    matrix tensor(std::string const&, extents shape) const { return matrix::Zero(shape.rows, shape.cols); }
    bool contains(std::string const& name) const { return exists(name); }
    linear_layer linear(linear_layer layer, extents shape, bool biased) const {
        packed_matrix weight;
        weight.extent = shape;
        layer.weight = std::move(weight);
        if (biased) {
            layer.bias = float_vector::Zero(shape.rows);
        }
        return layer;
    }
};

/// Whether layers get biases that they did not have, from shifts of what they read.
DETENT_INLINE bool gives_biases(spec const& s, model_configuration const& c) {
    auto const input = s.input.grid.name.empty() ? 16 : find_grid(s.input.grid).bits();
    return s.learning && s.learning.for_model(bits_of(s), input, c.norm_bias).transform;
}

DETENT_INLINE decoder outline_decoder(model_configuration const& c, spec const& s,
                                      std::function<bool(std::string const&)> const& contains) {
    check(s);
    outline_source source{contains};
    decoder model = assemble_decoder(c, c.names.prefixes.front(), source);
    auto const stays_float = [](linear_layer& layer) { layer.weight = matrix(layer.shape().rows, layer.shape().cols); };
    packed_matrix const sample = outline_sample(s);
    auto const rounding = rounding_of(s);
    auto const quantized = [&](linear_layer& layer, spec const& how) {
        extents const shape = layer.shape();
        layer.weight = outline_like(sample, how, shape);
        if (rounding) {
            layer.input = rounding->fixed ? activation_quantizer(rounding->grids.front(), {1, 0}) : rounding->dynamic();
        }
    };
    for (block& b : model.blocks) {
        auto const plan = plan_weak_columns(b, s, sample.bits);
        for (layer_place const place : b.places()) {
            linear_layer& layer = b.linear(place);
            if (plan.contains(place)) {
                quantized(layer, with_plan(s, plan, place));
                if (layer.bias.size() == 0 && gives_biases(s, c)) {
                    layer.bias = float_vector::Zero(layer.shape().rows);
                }
            } else {
                stays_float(layer);
            }
        }
        b.heads.probability_bits = s.learning.probability_bits;
    }
    for (auto* layer : {&model.project_in, &model.project_out, &model.lm_head}) {
        if (*layer) {
            stays_float(**layer);
        }
    }
    if (s.embeddings.name.empty()) {
        stays_float(model.embeddings);
        return model;
    }
    if (!model.lm_head) {
        model.lm_head = model.embeddings;
        model.lm_head->name = "lm_head";
    }
    spec head = s;
    head.weak.columns = 0;
    quantized(*model.lm_head, head);
    spec table = head; // as `quantize_embeddings` lays it out
    table.grid = s.embeddings;
    table.granularity = s.search ? per_tile{1, 0} : per_tile{0, 0};
    model.embeddings.weight = outline(table, model.embeddings.shape());
    return model;
}

} // namespace detent::inline DETENT_ABI
