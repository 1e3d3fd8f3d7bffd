// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/eigen.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/gguf_architecture.hpp"
#include "detent/model/gguf_configuration.hpp"
#include "detent/model/plan_gguf.hpp"
#include "detent/model/save_gguf.hpp"
#include "detent/quantizer/catalogue.hpp"
#include "detent/quantizer/spec.hpp"

namespace detent::inline DETENT_ABI {

/// Why llama.cpp could not do what `s` does beside choosing codes; empty where it could.
inline std::string gguf_form_obstacle(spec const& s, gguf_architecture const& a) {
    if (!s.input.grid.name.empty()) {
        return "llama.cpp rounds the inputs of layers in a way of its own";
    }
    if (s.weak.wanted) {
        return "llama.cpp's types have no weak columns";
    }
    bool const scaled = (s.smooth || s.power_of_two) && !s.input.folded;
    bool const moved =
        s.gptq_options.activation_order && !s.gptq_options.static_groups && s.granularity.cols > 0 && !s.super_blocks;
    if (scaled || s.hadamard > 0 || moved) {
        return "llama.cpp's products read inputs as they come, neither scaled, rotated nor in another order";
    }
    if (s.granularity.rows != 1 && a.neighbours) {
        return "llama.cpp's architecture '" + std::string(a.name) +
               "' has rows in another order, so that they cannot share scales";
    }
    if (s.format.has_unit() && !s.embeddings.name.empty()) {
        return "the output head would have scales in a unit of its own, which are not tried outside of blocks";
    }
    if (s.format.has_unit() && (a.joins_qkv || a.joins_gate_up)) {
        return "llama.cpp's architecture '" + std::string(a.name) +
               "' has one tensor for several layers, whose scales have units of their own";
    }
    return {};
}

/// A row of weights whose groups have zero points of their own.
inline matrix gguf_sample_row(index_t in) {
    matrix row(1, in);
    for (index_t i = 0; i < in; ++i) {
        row(0, i) = static_cast<float>(i * i % 47 - 15 + i / 16 % 5 * 8) / 32;
    }
    return row;
}

DETENT_INLINE std::string gguf_obstacle(model_configuration const& c, spec const& s) {
    if (auto obstacle = gguf_obstacle(c); !obstacle.empty()) {
        return obstacle;
    }
    if (auto obstacle = gguf_form_obstacle(s, *find_gguf_architecture(c.type)); !obstacle.empty()) {
        return obstacle;
    }
    spec rounded; // a row of weights, rounded to nearest, tells of the layers
    rounded.text = s.text;
    rounded.grid = s.grid;
    rounded.granularity = s.granularity;
    rounded.range = s.range;
    rounded.format = s.format;
    rounded.super_blocks = s.super_blocks;
    for (index_t const in :
         {c.hidden, c.heads.heads * c.heads.head_dim, c.experts ? c.experts->intermediate : c.hidden, c.intermediate}) {
        packed_matrix const w = quantize(gguf_sample_row(in), rounded).weights;
        packed_matrix const* const one[] = {&w};
        io::ggml_type const* type = nullptr;
        if (auto const obstacle = gguf_packed_obstacle(one, type); !obstacle.empty()) {
            return "a layer of " + std::to_string(in) + " inputs " + obstacle;
        }
    }
    if (!s.embeddings.name.empty()) {
        packed_matrix const w = quantize_embeddings(gguf_sample_row(c.hidden), s).weights;
        packed_matrix const* const one[] = {&w};
        io::ggml_type const* type = nullptr;
        if (auto const obstacle = gguf_packed_obstacle(one, type); !obstacle.empty()) {
            return "the table of embeddings " + obstacle;
        }
    }
    return {};
}

} // namespace detent::inline DETENT_ABI
