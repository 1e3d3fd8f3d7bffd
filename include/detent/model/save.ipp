// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/half.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/json.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save.hpp"

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
        if (norm.weight.size() > 0) {
            floats.emplace(weight, tensor_of(norm.weight, scale ? 0 : c.norm_offset));
        }
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

DETENT_INLINE model_tensors tensors_of(decoder const& model) {
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
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        all.add(model.blocks[i], model.prefix + c.names.blocks + std::to_string(i) + ".", c);
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

/// Whether a layer has a bias that the configuration does not know.
DETENT_INLINE bool has_new_bias(model_tensors::entry const& layer) {
    return layer.of->bias.size() > 0 && !layer.biased;
}

/// Why no layout of other programs can hold a layer; empty where one may.
DETENT_INLINE std::string layer_obstacle(model_tensors::entry const& layer) {
    bool const packed = std::holds_alternative<packed_matrix>(layer.of->weight);
    if (packed && !layer.in_block) {
        return "its embeddings and output head are not quantized";
    }
    if (packed && layer.of->stored) {
        return "it is a part of '" + layer.of->stored->tensor + "', which readers look for as a whole";
    }
    if (layer.of->input) {
        return "its inputs are not quantized";
    }
    return has_new_bias(layer) ? "it has no bias there" : "";
}

DETENT_INLINE std::optional<error> layout_obstacle(model_tensors const& model, io::packed_layout layout) {
    bool const owq = layout == io::packed_layout::owq;
    auto const refusal = [&](std::string const& name, std::string const& obstacle) {
        return error("layer '" + name + "'",
                     std::string(owq ? "OWQ's" : "GPTQ's") + " layout cannot hold it, " + obstacle);
    };
    for (auto const& layer : model.layers) {
        if (auto const obstacle = layer_obstacle(layer); !obstacle.empty()) {
            return refusal(layer.of->name, obstacle);
        }
    }
    for (block const* b : model.blocks) {
        if (b->head_input || b->heads.probability_bits > 0) {
            return refusal(attention_name(*b), "its inputs are not quantized");
        }
    }
    auto const layers = packed_layers(model);
    for (auto const& [name, packed] : layers) {
        auto const& first = *layers.begin()->second;
        std::string obstacle = owq ? io::owq_obstacle(*packed) : io::gptq_obstacle(*packed);
        bool const whole_rows = packed->tile.cols == packed->shape().cols && first.tile.cols == first.shape().cols;
        if (obstacle.empty() && (packed->bits != first.bits || (packed->tile.cols != first.tile.cols && !whole_rows))) {
            obstacle = "all of its layers have the same bits and group width";
        }
        if (!obstacle.empty()) {
            return refusal(name, obstacle);
        }
    }
    return {};
}

/// The bytes of `numbers` as elements of type `T`; nothing where one of them is no such number.
template <class T> std::optional<std::vector<std::uint8_t>> exact_bytes(std::span<float const> numbers) {
    std::vector<T> stored;
    for (float const x : numbers) {
        stored.push_back(static_cast<T>(x));
        if (std::bit_cast<std::uint32_t>(static_cast<float>(stored.back())) != std::bit_cast<std::uint32_t>(x)) {
            return {};
        }
    }
    return io::bytes_of(stored);
}

DETENT_INLINE void add_floats(io::safetensors_writer& file, std::string const& name, float_tensor const& tensor,
                              io::tensor_view const* original, io::dtype type) {
    std::vector<index_t> shape = tensor.shape;
    if (original != nullptr) {
        if (original->size() != std::ssize(tensor.numbers)) {
            throw error("tensor '" + io::printable(name) + "'", "has another shape in the model than in its source");
        }
        type = original->type;
        shape = original->shape;
        auto const bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
        auto const loaded = [&](float x) { return bits(tensor.offset == 0 ? x : x + tensor.offset); };
        if (std::ranges::equal(io::to_floats(*original, name), tensor.numbers, {}, loaded, bits)) {
            return file.add(name, type, std::move(shape), original->bytes);
        }
    }
    std::vector<float> stored(tensor.numbers.begin(), tensor.numbers.end());
    if (tensor.offset != 0) {
        std::ranges::transform(stored, stored.begin(), [&](float x) { return x - tensor.offset; });
    }
    auto bytes = type == io::dtype::f16    ? exact_bytes<half>(stored)
                 : type == io::dtype::bf16 ? exact_bytes<bfloat16>(stored)
                 : type == io::dtype::f64  ? exact_bytes<double>(stored)
                                           : std::nullopt;
    if (!bytes) {
        type = io::dtype::f32;
        bytes = exact_bytes<float>(stored);
    }
    file.add(name, type, std::move(shape), std::move(*bytes));
}

/// Writes the tensors of a model, and beside them what it does not use of the checkpoint that it was made from.
class tensor_saver {
public:
    tensor_saver(io::checkpoint const& original, io::packed_layout layout)
        : original_(original), add_packed_(layout == io::packed_layout::gptq_v2 ? io::add_gptq
                                           : layout == io::packed_layout::owq   ? io::add_owq
                                                                                : io::add_packed) {}

    /// Throws what `add_floats` throws, and where the original lacks a tensor.
    io::safetensors_writer make(model_tensors const& model) {
        std::map<std::string, std::vector<model_tensors::entry>> shared;
        for (auto const& layer : model.layers) {
            auto const& stored = layer.of->stored;
            if (stored && !original_.contains(layer.of->name + ".weight")) {
                shared[stored->tensor].push_back(layer);
            } else {
                add_layer(layer, io::dtype::f32, layer.may_be_new);
            }
        }
        for (auto const& [tensor, layers] : shared) {
            add_parts(layers);
        }
        for (auto const& [name, tensor] : model.floats) {
            add(name, tensor, &original_.at(name));
        }
        written_.insert(model.left_out.begin(), model.left_out.end());
        for (auto const& name : original_.names()) {
            if (!written_.contains(name)) {
                auto const& tensor = original_.at(name);
                file_.add(name, tensor.type, tensor.shape, tensor.bytes);
            }
        }
        return std::move(file_);
    }

private:
    void add(std::string const& name, float_tensor const& tensor, io::tensor_view const* original,
             io::dtype type = io::dtype::f32) {
        written_.insert(name);
        add_floats(file_, name, tensor, original, type);
    }

    io::tensor_view const* find(std::string const& name, bool may_be_new) const {
        return may_be_new && !original_.contains(name) ? nullptr : &original_.at(name);
    }

    /// A layer in tensors of its own name, in `type` where the original has none of them and may lack them.
    void add_layer(model_tensors::entry const& layer, io::dtype type, bool may_be_new) {
        linear_layer const& l = *layer.of;
        std::string const weight = l.name + ".weight", bias = l.name + ".bias";
        if (auto const* packed = std::get_if<packed_matrix>(&l.weight)) {
            written_.insert(weight);
            add_packed_(file_, l.name, *packed);
        } else if (l.transposed && !l.stored) {
            matrix const turned = std::get<matrix>(l.weight).transpose(); // (in, out)
            add(weight, tensor_of(turned), find(weight, may_be_new), type);
        } else {
            add(weight, tensor_of(std::get<matrix>(l.weight)), find(weight, may_be_new), type);
        }
        if (l.bias.size() > 0) {
            add(bias, tensor_of(l.bias), find(bias, may_be_new || !layer.biased), type);
        }
    }

    /// The layers that share a tensor of the original: in that tensor if all are float, else each under its own name.
    void add_parts(std::vector<model_tensors::entry> const& parts) {
        stored_rows const& at = *parts.front().of->stored;
        auto const& original = original_.at(at.weight_name());
        bool floats = true, biased = false, new_bias = false;
        for (auto const& part : parts) {
            floats = floats && std::holds_alternative<matrix>(part.of->weight);
            biased = biased || part.of->bias.size() > 0;
            new_bias = new_bias || has_new_bias(part);
        }
        written_.insert({at.weight_name(), at.bias_name()});
        if (!floats) {
            for (auto const& part : parts) {
                add_layer(part, original.type, true);
            }
            return;
        }
        add(at.weight_name(), tensor_of(joined_weight(parts)), &original);
        if (biased) {
            matrix const all = joined_bias(parts);
            float_tensor bias = tensor_of(all);
            if (at.experts == 0) {
                bias.shape = {at.rows};
            }
            add(at.bias_name(), bias, find(at.bias_name(), new_bias), original.type);
        }
    }

    /// The tensor of which layers are parts, as its experts one below the other.
    static matrix joined_weight(std::vector<model_tensors::entry> const& parts) {
        linear_layer const& first = *parts.front().of;
        index_t const in = first.shape().cols, rows = first.stored->rows;
        extents const one = first.transposed ? extents{in, rows} : extents{rows, in}; // of an expert
        matrix all = matrix::Zero(std::max<index_t>(first.stored->experts, 1) * one.rows, one.cols);
        for (auto const& part : parts) {
            stored_rows const& at = *part.of->stored;
            matrix const& w = std::get<matrix>(part.of->weight);
            auto mine = all.middleRows(at.expert * one.rows, one.rows);
            for (index_t i = 0; i < w.rows(); ++i) {
                if (first.transposed) {
                    mine.col(at.row(i)) = w.row(i).transpose();
                } else {
                    mine.row(at.row(i)) = w.row(i);
                }
            }
        }
        return all;
    }

    /// The bias there, (expert, row); 0 for layers without one.
    static matrix joined_bias(std::vector<model_tensors::entry> const& parts) {
        stored_rows const& first = *parts.front().of->stored;
        matrix all = matrix::Zero(std::max<index_t>(first.experts, 1), first.rows);
        for (auto const& part : parts) {
            stored_rows const& at = *part.of->stored;
            for (index_t i = 0; i < part.of->bias.size(); ++i) {
                all(at.expert, at.row(i)) = part.of->bias(i);
            }
        }
        return all;
    }

    io::checkpoint const& original_;
    void (*add_packed_)(io::safetensors_writer&, std::string const&, packed_matrix const&);
    io::safetensors_writer file_;
    std::set<std::string> written_; // and what is not to be copied
};

DETENT_INLINE save_plan plan_save(model_tensors const& model, std::optional<io::packed_layout> wanted) {
    if (wanted == io::packed_layout::gptq_v1) {
        throw error("GPTQ's v1 layout", "is read, not written");
    }
    inputs_to_store(model); // whether they can be stored
    if (wanted == io::packed_layout::detent) {
        return {io::packed_layout::detent, {}};
    }
    auto const layout = wanted.value_or(io::packed_layout::gptq_v2);
    if (auto const obstacle = layout_obstacle(model, layout)) {
        if (wanted) {
            throw *obstacle;
        }
        return {io::packed_layout::detent, obstacle->what()};
    }
    return {layout, {}};
}

/// What `config.json` says of the quantization.
DETENT_INLINE nlohmann::json quantization_settings(model_tensors const& model, io::packed_layout layout,
                                                   std::string const& description) {
    bool const gptq = layout == io::packed_layout::gptq_v2, owq = layout == io::packed_layout::owq;
    nlohmann::json settings{{"quant_method", gptq ? "gptq" : owq ? "owq" : "detent"}, {"description", description}};
    auto const layers = packed_layers(model);
    if (gptq || owq) { // which hold neither inputs nor new biases, so there are layers
        packed_matrix const& first = *layers.begin()->second;
        bool const whole_rows = first.tile.cols == first.shape().cols;
        settings["bits"] = first.bits;
        settings["group_size"] = whole_rows ? -1 : first.tile.cols;
        settings["sym"] = first.scales.zeros.empty();
    }
    if (gptq) {
        settings["checkpoint_format"] = "gptq_v2";
        settings["desc_act"] = !layers.begin()->second->map.empty();
        settings["lm_head"] = false;
        settings["pack_dtype"] = "int32";
    }
    return settings;
}

DETENT_INLINE save_plan save_model(model_tensors const& model, std::filesystem::path const& source,
                                   std::filesystem::path const& directory, std::string const& description,
                                   std::optional<io::packed_layout> wanted,
                                   function_ref<void(nlohmann::json&)> configure) {
    save_plan const plan = plan_save(model, wanted);
    auto const inputs = inputs_to_store(model);
    io::checkpoint const original(source);
    if (std::error_code ignored; std::filesystem::equivalent(source, directory, ignored)) {
        throw error(directory.string(), "is where the model came from; saving there would lose its float weights");
    }
    auto configuration = io::read_json(source / "config.json");
    auto const settings_found = configuration.find("quantization_config");
    if (settings_found != configuration.end() && !settings_found->is_null()) {
        throw error((source / "config.json").string() + ", field 'quantization_config'",
                    "is there; a model is saved with the float checkpoint that it was made from");
    }
    auto file = tensor_saver(original, plan.layout).make(model);
    for (auto const& [name, input] : inputs) {
        io::add_input(file, name, input);
    }
    configure(configuration);
    if (!packed_layers(model).empty() || !inputs.empty() || std::ranges::any_of(model.layers, has_new_bias)) {
        configuration["quantization_config"] = quantization_settings(model, plan.layout, description);
    }
    std::error_code failure;
    std::filesystem::create_directories(directory, failure);
    if (failure) {
        throw error(directory.string(), "cannot be created: " + failure.message());
    }
    io::atomic_file settings_file(directory / "config.json");
    settings_file.write(configuration.dump(2) + "\n");
    settings_file.close(); // all that can fail has been done when the first of the two appears
    file.save(directory / "model.safetensors");
    settings_file.commit();
    return plan;
}

DETENT_INLINE save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                                     std::filesystem::path const& directory, std::string const& description,
                                     std::optional<io::packed_layout> wanted) {
    bool const tied = !model.lm_head;
    return save_model(tensors_of(model), source, directory, description, wanted, [&](nlohmann::json& configuration) {
        if (parse_configuration(configuration, (source / "config.json").string()).tied_embeddings != tied) {
            configuration["tie_word_embeddings"] = tied;
        }
    });
}

} // namespace detent::inline DETENT_ABI
