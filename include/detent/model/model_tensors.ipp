// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/load.hpp"
#include "detent/model/model_tensors.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE void model_tensors::add(linear_layer const& layer, bool biased, bool may_be_new) {
    layers.push_back({.of = &layer, .biased = biased, .may_be_new = may_be_new});
}

/// The numbers of a vector of a model.
DETENT_INLINE float_tensor tensor_of(float_vector const& v, float offset = 0) {
    return {{v.data(), static_cast<std::size_t>(v.size())}, {v.size()}, offset};
}

/// The numbers of a matrix of a model.
DETENT_INLINE float_tensor tensor_of(matrix const& m) {
    return {{m.data(), static_cast<std::size_t>(m.size())}, {m.rows(), m.cols()}};
}

DETENT_INLINE void model_tensors::add(norm_layer const& norm, model_configuration const& c) {
    bool const scale = norm.type == nn::norm_kind::scale;
    auto const weight = norm.name + "." + (scale ? c.names.scale_weight : c.names.norm_weight);
    if (norm.weight.size() > 0) {
        floats.emplace(weight, tensor_of(norm.weight, scale ? 0 : c.norm_offset));
    }
    if (norm.bias.size() > 0) {
        floats.emplace(norm.name + "." + c.names.norm_bias, tensor_of(norm.bias));
    }
}

DETENT_INLINE void model_tensors::add(std::string const& name, matrix const& table) {
    floats.emplace(name, tensor_of(table));
}

DETENT_INLINE void model_tensors::add(block const& b, std::string const& name, model_configuration const& c) {
    blocks.push_back(&b);
    for (layer_place const place : b.places()) {
        auto const role = place.role;
        bool const biased = role <= linear_role::value         ? c.qkv_bias
                            : role == linear_role::output      ? c.output_bias
                            : role == linear_role::shared_gate ? false
                            : role == linear_role::router      ? c.experts->router_bias
                            : b.router                         ? c.experts->bias
                                                               : c.mlp_bias;
        layers.push_back({.of = &b.linear(place), .in_block = true, .biased = biased});
    }
    auto const &attention = b.attention_norms, &mlp = b.mlp_norms;
    for (auto const* norm : {&attention.input, &attention.output, &attention.sum, &mlp.input, &mlp.output, &mlp.sum,
                             &b.query_norm, &b.key_norm}) {
        if (*norm) {
            add(**norm, c);
        }
    }
    auto const& correction = b.routing.correction;
    if (!correction.empty()) {
        floats.emplace(name + c.names.router_correction, float_tensor{correction, {std::ssize(correction)}});
    }
    auto const& sinks = b.attention.sinks;
    if (!sinks.empty()) {
        floats.emplace(name + c.names.sinks, float_tensor{sinks, {std::ssize(sinks)}});
    }
}

DETENT_INLINE model_tensors tensors_of_ends(decoder const& model) {
    auto const& c = model.configuration;
    model_tensors all;
    all.add(model.embeddings, false);
    if (model.lm_head) {
        all.add(*model.lm_head, c.head_bias, true);
    } else {
        all.left_out.push_back(c.names.head + ".weight"); // a copy of the embeddings, which may have changed
    }
    for (auto const* layer : {&model.project_in, &model.project_out}) {
        if (*layer) {
            all.add(**layer, false);
        }
    }
    for (auto const* norm : {&model.embedding_norm, &model.final_norm}) {
        if (*norm) {
            all.add(**norm, c);
        }
    }
    if (model.position_embeddings.size() > 0) {
        all.add(model.prefix + c.names.positions + ".weight", model.position_embeddings);
    }
    return all;
}

/// The beginning of the names of the tensors of block `i`.
DETENT_INLINE std::string block_name(decoder const& model, index_t i) {
    return model.prefix + model.configuration.names.blocks + std::to_string(i) + ".";
}

DETENT_INLINE model_tensors tensors_of_block(decoder const& model, index_t i, block const& b) {
    model_tensors all;
    all.add(b, block_name(model, i), model.configuration);
    return all;
}

DETENT_INLINE model_tensors tensors_of(decoder const& model) {
    model_tensors all = tensors_of_ends(model);
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        all.add(model.blocks[i], block_name(model, static_cast<index_t>(i)), model.configuration);
    }
    return all;
}

DETENT_INLINE std::map<std::string, packed_matrix const*> packed_layers(model_tensors const& model) {
    std::map<std::string, packed_matrix const*> packed;
    for (auto const& layer : model.layers) {
        if (auto const* codes = std::get_if<packed_matrix>(&layer.of->weight)) {
            packed.emplace(layer.of->name, codes);
        }
    }
    return packed;
}

DETENT_INLINE std::map<std::string, io::stored_input> inputs_to_store(model_tensors const& model) {
    std::map<std::string, io::stored_input> inputs;
    auto const add = [&](std::string const& name, std::optional<activation_quantizer> const& quantizer, index_t width) {
        if (!quantizer) {
            return;
        }
        auto const refusal = [&](std::string const& problem) {
            return error("layer '" + name + "'", "how its input is rounded cannot be saved: " + problem);
        };
        auto const& grid = quantizer->grid();
        if (grid.name().empty()) {
            throw refusal("the grid has no name");
        }
        auto const& how = quantizer->how();
        if (!how.range.empty()) {
            throw refusal("its scales are fitted by a range of its own");
        }
        io::stored_input stored{
            .grid = grid.name(), .shifts = how.shifts, .width = how.width, .kind = how.kind, .unit = how.unit};
        for (tile_scale const s : how.fixed) {
            stored.scales.push_back(s.scale);
            if (grid.has_zero()) {
                stored.zeros.push_back(s.zero);
            }
        }
        if (!stored.scales.empty() && std::ssize(stored.scales) != stored.groups(width)) {
            throw refusal(std::to_string(stored.scales.size()) + " scales for " + std::to_string(width) +
                          " inputs in groups of " + std::to_string(stored.width));
        }
        if (!stored.shifts.empty() && std::ssize(stored.shifts) != width) {
            throw refusal(std::to_string(stored.shifts.size()) + " shifts for " + std::to_string(width) + " inputs");
        }
        auto const read_back = input_quantizer(stored, [&](std::string const& tensor, std::string const& problem) {
            return refusal(tensor + " " + problem);
        });
        if (!(read_back == *quantizer)) {
            throw refusal("the name '" + grid.name() + "' is that of another grid");
        }
        inputs.emplace(name, std::move(stored));
    };
    for (auto const& layer : model.layers) {
        add(layer.of->name, layer.of->input, layer.of->shape().cols);
    }
    for (block const* b : model.blocks) {
        add(attention_name(*b), b->head_input, b->heads.head_dim);
        if (b->heads.probability_bits > 0) {
            add(probabilities_name(*b), probability_quantizer(b->heads.probability_bits), 0);
        }
    }
    return inputs;
}

DETENT_INLINE std::vector<io::layer_to_save> layers_to_save(model_tensors const& model,
                                                            std::map<std::string, io::stored_input> const& inputs) {
    std::vector<io::layer_to_save> all;
    std::set<std::string> names;
    for (auto const& [of, in_block, biased, may_be_new] : model.layers) {
        auto const* packed = std::get_if<packed_matrix>(&of->weight);
        auto const input = inputs.find(of->name);
        bool const whole = packed == nullptr && of->stored && input == inputs.end(); // of which it is a part
        std::string const name = whole ? of->stored->tensor : of->name;
        if (names.insert(name).second) {
            all.push_back({name, packed, input == inputs.end() ? nullptr : &input->second, in_block});
        }
    }
    for (auto const& [name, input] : inputs) {
        if (names.insert(name).second) {
            all.push_back({name, nullptr, &input, true});
        }
    }
    return all;
}

} // namespace detent::inline DETENT_ABI
