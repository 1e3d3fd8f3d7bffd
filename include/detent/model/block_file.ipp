// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/tensor_reader.hpp"
#include "detent/model/block_file.hpp"
#include "detent/model/load.hpp"
#include "detent/model/model_tensors.hpp"

namespace detent::inline DETENT_ABI {

/// The norms that a block may have, in an order that numbers them in files.
template <class Block> std::array<decltype(&std::declval<Block&>().query_norm), 8> norms_of(Block& b) {
    auto &attention = b.attention_norms, &mlp = b.mlp_norms;
    return {&attention.input, &attention.output, &attention.sum, &mlp.input,
            &mlp.output,      &mlp.sum,          &b.query_norm,  &b.key_norm};
}

/// The bytes of numbers.
inline std::span<std::uint8_t const> raw_bytes(float const* numbers, index_t count) {
    return {reinterpret_cast<std::uint8_t const*>(numbers), static_cast<std::size_t>(count) * sizeof(float)};
}

DETENT_INLINE void save_block(block const& b, std::filesystem::path const& path,
                              std::map<std::string, std::string> const& metadata) {
    io::safetensors_writer file;
    auto const add_vector = [&](std::string const& name, float_vector const& v) {
        if (v.size() > 0) {
            file.add(name, io::dtype::f32, {v.size()}, raw_bytes(v.data(), v.size()));
        }
    };
    model_tensors all;
    all.blocks.push_back(&b);
    for (layer_place const place : b.places()) {
        linear_layer const& layer = b.linear(place);
        all.layers.push_back({.of = &layer, .in_block = true});
        if (auto const* packed = std::get_if<packed_matrix>(&layer.weight)) {
            io::add_packed(file, layer.name, *packed);
        } else {
            auto const& w = std::get<matrix>(layer.weight);
            file.add(layer.name + ".weight", io::dtype::f32, {w.rows(), w.cols()}, raw_bytes(w.data(), w.size()));
        }
        add_vector(layer.name + ".bias", layer.bias);
    }
    auto const norms = norms_of(b);
    for (std::size_t i = 0; i < norms.size(); ++i) {
        if (*norms[i]) {
            add_vector("norm." + std::to_string(i) + ".weight", (*norms[i])->weight);
            add_vector("norm." + std::to_string(i) + ".bias", (*norms[i])->bias);
        }
    }
    auto const inputs = inputs_to_store(all);
    for (auto const& [name, input] : inputs) {
        io::add_input(file, name, input);
    }
    file.save(path, metadata);
}

DETENT_INLINE std::map<std::string, std::string> load_block(block& b, std::filesystem::path const& path) {
    io::checkpoint const file(path);
    io::tensor_reader const tensors(file);
    auto const read_vector = [&](std::string const& name, float_vector& v) {
        v.resize(0);
        if (tensors.contains(name)) {
            v.resize(tensors.at(name).size());
            io::copy_to_floats(tensors.checked(name, {v.size()}), name, v.data());
        }
    };
    for (layer_place const place : b.places()) {
        linear_layer& layer = b.linear(place);
        extents const shape = layer.shape();
        if (tensors.contains(layer.name + ".codes")) {
            layer.weight = io::read_detent(tensors, layer.name, shape);
        } else {
            matrix w(shape.rows, shape.cols);
            std::string const name = layer.name + ".weight";
            io::copy_to_floats(tensors.checked(name, {shape.rows, shape.cols}), name, w.data());
            layer.weight = std::move(w);
        }
        read_vector(layer.name + ".bias", layer.bias);
        layer.input = stored_quantizer(tensors, layer.name, shape.cols);
    }
    auto const norms = norms_of(b);
    for (std::size_t i = 0; i < norms.size(); ++i) {
        if (*norms[i]) {
            read_vector("norm." + std::to_string(i) + ".weight", (*norms[i])->weight);
            read_vector("norm." + std::to_string(i) + ".bias", (*norms[i])->bias);
        }
    }
    b.head_input = stored_quantizer(tensors, attention_name(b), b.heads.head_dim);
    auto const probabilities = stored_quantizer(tensors, probabilities_name(b), 0);
    b.heads.probability_bits = probabilities ? probabilities->grid().bits() : 0;
    return file.files().front().metadata();
}

/// The numbers of a list, each once, if there are no more than codes have; else so many of them.
inline std::vector<float> some_of_each(std::vector<float> const& numbers) {
    std::set<float> different;
    for (float const x : numbers) {
        different.insert(x);
        if (different.size() == 256) {
            break;
        }
    }
    return {different.begin(), different.end()};
}

DETENT_INLINE block outline_of(block const& b) {
    block o;
    auto const outline_layer = [](linear_layer const& from) {
        linear_layer to;
        to.name = from.name;
        to.bias = from.bias;
        to.input = from.input;
        to.stored = from.stored;
        to.transposed = from.transposed;
        if (auto const* packed = std::get_if<packed_matrix>(&from.weight)) {
            packed_matrix w;
            w.bits = packed->bits;
            w.extent = packed->extent;
            w.tile = packed->tile;
            w.table = packed->table;
            w.map = packed->map;
            w.scales.tiles = packed->scales.tiles;
            w.scales.format = packed->scales.format;
            w.scales.zeros = some_of_each(packed->scales.zeros);
            w.weak = weak_columns(packed->weak.columns(), 0, packed->weak.format());
            to.weight = std::move(w);
        } else {
            to.weight = matrix(from.shape().rows, from.shape().cols);
        }
        return to;
    };
    o.attention_norms = b.attention_norms;
    o.query_norm = b.query_norm;
    o.key_norm = b.key_norm;
    o.query = outline_layer(b.query);
    o.key = outline_layer(b.key);
    o.value = outline_layer(b.value);
    o.output = outline_layer(b.output);
    o.mlp_norms = b.mlp_norms;
    for (auto const& mlp : b.mlps) {
        o.mlps.push_back({mlp.gate ? std::optional(outline_layer(*mlp.gate)) : std::nullopt, outline_layer(mlp.up),
                          outline_layer(mlp.down)});
    }
    o.router = b.router;
    o.shared_gate = b.shared_gate;
    o.heads = b.heads;
    o.attention = b.attention;
    o.rotary = b.rotary;
    o.gate_form = b.gate_form;
    o.routing = b.routing;
    o.parallel = b.parallel;
    o.residual = b.residual;
    o.head_input = b.head_input;
    return o;
}

} // namespace detent::inline DETENT_ABI
