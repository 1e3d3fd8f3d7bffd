// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <variant>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/json.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// Which layout a quantized model is saved in, and why not GPTQ's if nobody asked for another.
struct save_plan {
    io::packed_layout layout = io::packed_layout::gptq_v2;
    std::string obstacle; ///< what GPTQ's layout cannot hold; empty where it can hold all or another was asked for
};

/// The packed layers of `model` by name.
inline std::map<std::string, packed_matrix const*> packed_layers(decoder const& model) {
    std::map<std::string, packed_matrix const*> layers;
    for (block const& b : model.blocks) {
        for (auto const& group : b.groups()) {
            for (linear_role const role : group) {
                auto const& layer = b.linear(role);
                if (auto const* packed = std::get_if<packed_matrix>(&layer.weight)) {
                    layers.emplace(layer.name, packed);
                }
            }
        }
    }
    return layers;
}

/// What `layout`, which is GPTQ's v2 or OWQ's, cannot hold: an error that names the first such layer. Nothing when
/// every layer fits and they agree in bits and group width.
inline std::optional<error> layout_obstacle(std::map<std::string, packed_matrix const*> const& layers,
                                            io::packed_layout layout) {
    bool const owq = layout == io::packed_layout::owq;
    for (auto const& [name, packed] : layers) {
        auto const& first = *layers.begin()->second;
        std::string obstacle = owq ? io::owq_obstacle(*packed) : io::gptq_obstacle(*packed);
        bool const whole_rows = packed->tile.cols == packed->shape().cols && first.tile.cols == first.shape().cols;
        if (obstacle.empty() && (packed->bits != first.bits || (packed->tile.cols != first.tile.cols && !whole_rows))) {
            obstacle = "all of its layers have the same bits and group width";
        }
        if (!obstacle.empty()) {
            return error("layer '" + name + "'",
                         std::string(owq ? "OWQ's" : "GPTQ's") + " layout cannot hold it, " + obstacle);
        }
    }
    return {};
}

/// The layout that is `wanted`; by default GPTQ's v2 where it can hold every layer, else detent's own. @throws error
/// naming a layer that the wanted layout cannot hold, and why.
inline save_plan plan_save(decoder const& model, std::optional<io::packed_layout> wanted = {}) {
    if (wanted == io::packed_layout::gptq_v1) {
        throw error("GPTQ's v1 layout", "is read, not written");
    }
    if (wanted == io::packed_layout::detent) {
        return {io::packed_layout::detent, {}};
    }
    auto const layout = wanted.value_or(io::packed_layout::gptq_v2);
    if (auto const obstacle = layout_obstacle(packed_layers(model), layout)) {
        if (wanted) {
            throw *obstacle;
        }
        return {io::packed_layout::detent, obstacle->what()};
    }
    return {layout, {}};
}

/// Writes `config.json` and `model.safetensors` of a quantized model to `directory`, which it creates. `source` is the
/// directory that `model` was loaded from: all it has but the quantized weights is copied as it is. `description` goes
/// into the quantization settings. The files appear whole or not at all. @throws error when one cannot be written, and
/// like `plan_save`.
inline save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                              std::filesystem::path const& directory, std::string const& description,
                              std::optional<io::packed_layout> wanted = {}) {
    save_plan const plan = plan_save(model, wanted);
    bool const gptq = plan.layout == io::packed_layout::gptq_v2;
    bool const owq = plan.layout == io::packed_layout::owq;
    auto const add = gptq ? io::add_gptq : owq ? io::add_owq : io::add_packed;
    auto const layers = packed_layers(model);
    io::checkpoint const original(source);
    if (std::error_code ignored; std::filesystem::equivalent(source, directory, ignored)) {
        throw error(directory.string(), "is where the model came from; saving there would lose its float weights");
    }
    io::safetensors_writer file;
    for (auto const& name : original.names()) {
        bool const weight = name.ends_with(".weight");
        if (!weight || !layers.contains(name.substr(0, name.size() - std::string(".weight").size()))) {
            auto const& tensor = original.at(name);
            file.add(name, tensor.type, tensor.shape, tensor.bytes);
        }
    }
    for (auto const& [name, packed] : layers) {
        add(file, name, *packed);
    }

    auto configuration = io::read_json(source / "config.json");
    if (!layers.empty()) {
        packed_matrix const& first = *layers.begin()->second;
        nlohmann::json settings{{"quant_method", gptq ? "gptq" : owq ? "owq" : "detent"}, {"description", description}};
        if (gptq || owq) {
            bool const whole_rows = first.tile.cols == first.shape().cols;
            settings["bits"] = first.bits;
            settings["group_size"] = whole_rows ? -1 : first.tile.cols;
            settings["sym"] = first.scales.zeros.empty();
        }
        if (gptq) {
            settings["checkpoint_format"] = "gptq_v2";
            settings["desc_act"] = !first.order.empty();
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
