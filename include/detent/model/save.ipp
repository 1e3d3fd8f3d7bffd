// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
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

DETENT_INLINE std::vector<linear_layer const*> linear_layers(decoder const& model) {
    std::vector<linear_layer const*> layers{&model.embeddings};
    if (model.lm_head) {
        layers.push_back(&*model.lm_head);
    }
    for (block const& b : model.blocks) {
        for (auto const& group : b.groups()) {
            for (linear_role const role : group) {
                layers.push_back(&b.linear(role));
            }
        }
    }
    return layers;
}

DETENT_INLINE std::map<std::string, packed_matrix const*> packed_layers(decoder const& model) {
    std::map<std::string, packed_matrix const*> layers;
    for (auto const* layer : linear_layers(model)) {
        if (auto const* packed = std::get_if<packed_matrix>(&layer->weight)) {
            layers.emplace(layer->name, packed);
        }
    }
    return layers;
}

DETENT_INLINE std::map<std::string, io::stored_input> inputs_to_store(decoder const& model) {
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
    for (auto const* layer : linear_layers(model)) {
        add(layer->name, layer->input, layer->shape().cols);
    }
    for (block const& b : model.blocks) {
        add(attention_name(b), b.head_input, b.heads.head_dim);
        if (b.heads.probability_bits > 0) {
            add(probabilities_name(b), probability_quantizer(b.heads.probability_bits), 0);
        }
    }
    return inputs;
}

DETENT_INLINE std::optional<error> layout_obstacle(decoder const& model, io::packed_layout layout) {
    bool const owq = layout == io::packed_layout::owq;
    auto const refusal = [&](std::string const& name, std::string const& obstacle) {
        return error("layer '" + name + "'",
                     std::string(owq ? "OWQ's" : "GPTQ's") + " layout cannot hold it, " + obstacle);
    };
    for (auto const* layer : linear_layers(model)) {
        bool const in_block = layer != &model.embeddings && !(model.lm_head && layer == &*model.lm_head);
        if (!in_block && std::holds_alternative<packed_matrix>(layer->weight)) {
            return refusal(layer->name, "its embeddings and output head are not quantized");
        }
        if (layer->input) {
            return refusal(layer->name, "its inputs are not quantized");
        }
    }
    for (block const& b : model.blocks) {
        if (b.head_input || b.heads.probability_bits > 0) {
            return refusal(attention_name(b), "its inputs are not quantized");
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

/// The weights and biases of `model` that are not packed, by the names they have in a checkpoint.
DETENT_INLINE std::map<std::string, float_tensor> float_tensors(decoder const& model) {
    std::map<std::string, float_tensor> tensors;
    auto const add_vector = [&](std::string const& name, float_vector const& v) {
        if (v.size() > 0) {
            tensors[name] = {{v.data(), static_cast<std::size_t>(v.size())}, {v.size()}};
        }
    };
    auto const add_matrix = [&](std::string const& name, matrix const& m) {
        tensors[name] = {{m.data(), static_cast<std::size_t>(m.size())}, {m.rows(), m.cols()}};
    };
    auto const add_norm = [&](norm_layer const& norm) {
        add_vector(norm.name + ".weight", norm.weight);
        add_vector(norm.name + ".bias", norm.bias);
    };
    for (auto const* layer : linear_layers(model)) {
        if (auto const* dense = std::get_if<matrix>(&layer->weight)) {
            add_matrix(layer->name + ".weight", *dense);
        }
        add_vector(layer->name + ".bias", layer->bias);
    }
    for (block const& b : model.blocks) {
        add_norm(b.attention_norm);
        add_norm(b.mlp_norm);
    }
    add_norm(model.final_norm);
    if (model.position_embeddings.size() > 0) {
        add_matrix(model.prefix + "embed_positions.weight", model.position_embeddings);
    }
    return tensors;
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
                              io::tensor_view const* original) {
    std::optional<std::vector<std::uint8_t>> bytes;
    if (original != nullptr) {
        if (original->shape != tensor.shape) {
            throw error("tensor '" + io::printable(name) + "'", "has another shape in the model than in its source");
        }
        auto const bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
        if (std::ranges::equal(io::to_floats(*original, name), tensor.numbers, {}, bits, bits)) {
            return file.add(name, original->type, original->shape, original->bytes);
        }
        if (original->type == io::dtype::f16) {
            bytes = exact_bytes<half>(tensor.numbers);
        } else if (original->type == io::dtype::bf16) {
            bytes = exact_bytes<bfloat16>(tensor.numbers);
        } else if (original->type == io::dtype::f64) {
            bytes = exact_bytes<double>(tensor.numbers);
        }
    }
    if (bytes) {
        file.add(name, original->type, tensor.shape, std::move(*bytes));
    } else {
        file.add(name, io::dtype::f32, tensor.shape, std::move(*exact_bytes<float>(tensor.numbers)));
    }
}

DETENT_INLINE save_plan plan_save(decoder const& model, std::optional<io::packed_layout> wanted) {
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

DETENT_INLINE save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                                     std::filesystem::path const& directory, std::string const& description,
                                     std::optional<io::packed_layout> wanted) {
    save_plan const plan = plan_save(model, wanted);
    bool const gptq = plan.layout == io::packed_layout::gptq_v2;
    bool const owq = plan.layout == io::packed_layout::owq;
    auto const add = gptq ? io::add_gptq : owq ? io::add_owq : io::add_packed;
    auto const layers = packed_layers(model);
    auto const floats = float_tensors(model);
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
    io::safetensors_writer file;
    for (auto const& name : original.names()) {
        bool const weight = name.ends_with(".weight");
        bool const packed = weight && layers.contains(name.substr(0, name.size() - std::string(".weight").size()));
        if (!packed && !floats.contains(name)) {
            auto const& tensor = original.at(name);
            file.add(name, tensor.type, tensor.shape, tensor.bytes);
        }
    }
    for (auto const& [name, tensor] : floats) {
        // A model with tied embeddings may have got an output head of its own; nothing else is new.
        bool const new_head = model.lm_head && name == model.lm_head->name + ".weight" && !original.contains(name);
        add_floats(file, name, tensor, new_head ? nullptr : &original.at(name));
    }
    for (auto const& [name, packed] : layers) {
        add(file, name, *packed);
    }
    for (auto const& [name, input] : inputs) {
        io::add_input(file, name, input);
    }

    bool const tied = !model.lm_head;
    if (parse_configuration(configuration, (source / "config.json").string()).tied_embeddings != tied) {
        configuration["tie_word_embeddings"] = tied;
    }
    if (!layers.empty() || !inputs.empty()) {
        nlohmann::json settings{{"quant_method", gptq ? "gptq" : owq ? "owq" : "detent"}, {"description", description}};
        if (gptq || owq) { // which hold no inputs, so there are layers
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
        configuration["quantization_config"] = settings;
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

} // namespace detent::inline DETENT_ABI
