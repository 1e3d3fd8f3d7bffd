// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/model/plan_layout.hpp"
#include "detent/quantizer/named_grid.hpp"

namespace detent::inline DETENT_ABI {

/// What happens to the inputs of a layer.
DETENT_INLINE input_map sketch_map(spec const& s, extents shape, extents tile) {
    input_map map;
    if ((s.smooth || s.power_of_two) && !s.input.folded) {
        map.then(diagonal{std::vector<float>(static_cast<std::size_t>(shape.cols), 2.0F)}, shape.cols);
    }
    if (s.hadamard > 0) {
        map.then(block_hadamard{static_cast<std::int32_t>(s.hadamard)}, shape.cols);
    }
    bool const sweeps = s.solver != spec::solver_kind::rtn && s.solver != spec::solver_kind::obq;
    if (sweeps && s.gptq_options.activation_order && !s.gptq_options.static_groups && tile.cols < shape.cols) {
        std::vector<std::int32_t> order(static_cast<std::size_t>(shape.cols));
        std::iota(order.rbegin(), order.rend(), 0);
        map.then(permutation{std::move(order)}, shape.cols);
    }
    return map;
}

DETENT_INLINE packed_matrix sketch(spec const& s, extents shape) {
    any_grid const grid = find_grid(s.grid);
    packed_matrix w;
    w.bits = grid.bits();
    w.extent = shape;
    w.tile = s.granularity.tile(shape);
    w.table = grid.table();
    w.scales.format = s.format;
    w.scales.tiles = {ceil_div(shape.rows, w.tile.rows), ceil_div(shape.cols, w.tile.cols)};
    if (grid.has_zero()) {
        w.scales.zeros = {1}; // of one tile, which stands for all: only whether there are any is known
    }
    w.map = sketch_map(s, shape, w.tile);
    if (s.weak.wanted) {
        w.weak = weak_columns({0}, shape.rows, float_format::f16);
    }
    return w;
}

DETENT_INLINE std::optional<io::stored_input> sketch_input(spec const& s, index_t in) {
    if (s.input.grid.name.empty()) {
        return {};
    }
    io::stored_input input{.grid = s.input.grid.text(), .width = s.input.width, .kind = s.input.format.kind};
    if (s.input.fixed()) {
        input.kind = scale_kind::f32;
        input.scales.assign(static_cast<std::size_t>(input.groups(in)), 1.0F);
        if (find_grid(s.input.grid).has_zero()) {
            input.zeros.assign(input.scales.size(), 0.0F);
        }
        if (s.input.shifted && !s.input.folded) {
            input.shifts.resize(static_cast<std::size_t>(in));
        }
    }
    return input;
}

DETENT_INLINE std::optional<error> layout_obstacle(spec const& s, io::packed_layout id,
                                                   std::span<planned_layer const> layers) {
    auto const& layout = io::layout_of(id);
    if (layout.add == nullptr) {
        return error(std::string(layout.title) + " layout", "is read, not written");
    }
    if (id == io::packed_layout::detent) {
        return {};
    }
    auto const refusal = [&](std::string const& name, std::string const& obstacle) {
        return error("layer '" + name + "'", std::string(layout.title) + " layout cannot hold it, " + obstacle);
    };
    if (!s.embeddings.name.empty() && !layers.empty()) {
        return refusal("embeddings", "its embeddings and output head are not quantized");
    }
    std::optional<packed_matrix> first;
    for (auto const& [name, shape, part_of] : layers) {
        if (!part_of.empty()) {
            return refusal(name, "it is a part of '" + part_of + "', which readers look for as a whole");
        }
        packed_matrix w = sketch(s, shape);
        std::string obstacle = layout.obstacle(w);
        if (auto const input = sketch_input(s, shape.cols); input && obstacle.empty()) {
            obstacle = layout.input_obstacle(&w, *input);
        }
        if (obstacle.empty() && first && layout.pair_obstacle != nullptr) {
            obstacle = layout.pair_obstacle(*first, w);
        }
        if (!obstacle.empty()) {
            return refusal(name, obstacle);
        }
        first = first ? std::move(first) : std::optional(std::move(w));
    }
    return {};
}

DETENT_INLINE std::string client_obstacle(io::client who, spec const& s, io::packed_layout layout,
                                          std::span<planned_layer const> layers) {
    for (auto const& layer : layers) {
        auto const input = sketch_input(s, layer.shape.cols);
        auto form = io::form_of(layout, sketch(s, layer.shape), input ? &*input : nullptr);
        if (auto obstacle = io::client_obstacle(who, form); !obstacle.empty()) {
            return obstacle;
        }
    }
    return {};
}

} // namespace detent::inline DETENT_ABI
