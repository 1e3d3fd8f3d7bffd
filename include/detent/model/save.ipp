// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/half.hpp"
#include "detent/io/json.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/io/text_file.hpp"
#include "detent/io/work_directory.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/exact_numbers.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save.hpp"

namespace detent::inline DETENT_ABI {

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
    return has_new_bias(layer) ? "it has no bias there" : "";
}

DETENT_INLINE std::optional<error> layout_obstacle(model_tensors const& model, io::packed_layout id) {
    auto const& layout = io::layout_of(id);
    auto const refusal = [&](std::string const& name, std::string const& obstacle) {
        return error("layer '" + name + "'", std::string(layout.title) + " layout cannot hold it, " + obstacle);
    };
    if (id == io::packed_layout::detent) {
        return {};
    }
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
    packed_matrix const* first = nullptr;
    auto const inputs = inputs_to_store(model);
    auto const layers = packed_layers(model);
    for (auto const& [name, input] : inputs) {
        auto const found = layers.find(name);
        auto const obstacle = layout.input_obstacle(found == layers.end() ? nullptr : found->second, input);
        if (!obstacle.empty()) {
            return refusal(name, obstacle);
        }
    }
    for (auto const& [name, packed] : layers) {
        std::string obstacle = layout.obstacle(*packed);
        if (obstacle.empty() && first != nullptr && layout.pair_obstacle != nullptr) {
            obstacle = layout.pair_obstacle(*first, *packed);
        }
        if (!obstacle.empty()) {
            return refusal(name, obstacle);
        }
        first = first == nullptr ? packed : first;
    }
    return {};
}

/// The bytes of `numbers` as elements of type `T`; nothing where one of them is no such number.
template <class T> std::optional<std::vector<std::uint8_t>> exact_bytes(std::span<float const> numbers) {
    return are_numbers_of<T>(numbers) ? std::optional(bytes_as<T>(numbers)) : std::nullopt;
}

/// Whether loading `original` gives the numbers of a tensor, to the bit.
DETENT_INLINE bool are_loaded_from(io::tensor_view const& original, std::string const& name,
                                   float_tensor const& tensor) {
    auto const bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
    auto const loaded = [&](float x) { return bits(tensor.offset == 0 ? x : x + tensor.offset); };
    constexpr std::size_t step = std::size_t{1} << 20; // numbers at a time, so that no large copy is made
    std::size_t const width = static_cast<std::size_t>(io::bit_size(original.type)) / 8;
    for (std::size_t at = 0; at < tensor.numbers.size(); at += step) {
        auto const numbers = tensor.numbers.subspan(at, std::min(step, tensor.numbers.size() - at));
        io::tensor_view const part{
            original.type, {std::ssize(numbers)}, original.bytes.subspan(at * width, numbers.size() * width)};
        if (!std::ranges::equal(io::to_floats(part, name), numbers, {}, loaded, bits)) {
            return false;
        }
    }
    return true;
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
        if (are_loaded_from(*original, name, tensor)) {
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
    /// The original's `settings` say which of its tensors are packed.
    tensor_saver(io::checkpoint const& original, io::quantization_settings const& settings)
        : original_(original), packed_(original, settings) {
        file_.copy_from(original);
    }

    /// See `model_saver`.
    void keep_in_file(std::filesystem::path const& directory) { file_.keep_in_file(directory); }

    /// To be called first, with all layers of the model.
    void begin(model_tensors const& model) {
        leave_out_packed(model);
        left_out_.insert(model.left_out.begin(), model.left_out.end());
    }

    /// Adds a part. Throws what `add_floats` throws, and where the original lacks a tensor.
    void add(model_tensors const& model, io::checkpoint_layout const& layout, nlohmann::json const& settings) {
        auto const inputs = inputs_to_store(model);
        for (auto const& layer : layers_to_save(model, inputs)) {
            if (layer.weight != nullptr || layer.input != nullptr) {
                layout.add(file_, layer, settings);
            }
        }
        std::map<std::string, std::vector<model_tensors::entry>> shared;
        for (auto const& layer : model.layers) {
            auto const& stored = layer.of->stored;
            if (stored && is_float(stored->weight_name()) && !original_.contains(layer.of->name + ".weight")) {
                shared[stored->tensor].push_back(layer);
            } else {
                add_layer(layer, io::dtype::f32, layer.may_be_new);
            }
        }
        for (auto const& [tensor, parts] : shared) {
            add_parts(parts);
        }
        for (auto const& [name, tensor] : model.floats) {
            add(name, tensor, &original_.at(name));
        }
        original_.release();
    }

    /// Adds what the parts do not have of the original; this is then all of the file.
    io::safetensors_writer const& finish() {
        written_.merge(left_out_);
        for (auto const& name : original_.names()) {
            if (written_.insert(name).second) {
                auto const& tensor = original_.at(name);
                file_.add(name, tensor.type, tensor.shape, tensor.bytes);
            }
        }
        return file_;
    }

private:
    void add(std::string const& name, float_tensor const& tensor, io::tensor_view const* original,
             io::dtype type = io::dtype::f32) {
        written_.insert(name);
        add_floats(file_, name, tensor, original, type);
    }

    io::tensor_view const* find(std::string const& name, bool may_be_new) const {
        return (may_be_new && !original_.contains(name)) || written_.contains(name) ? nullptr : &original_.at(name);
    }

    /// Whether the original has this tensor, and of floats.
    bool is_float(std::string const& name) const {
        return original_.contains(name) && io::bit_size(original_.at(name).type) > 8;
    }

    /// Nothing of what is packed in the original is copied.
    void leave_out_packed(model_tensors const& model) {
        std::set<std::string> modules;
        for (auto const& layer : model.layers) {
            modules.insert(layer.of->name);
            if (auto const& stored = layer.of->stored) {
                modules.insert(stored->tensor);
                written_.insert({stored->tensor + "_blocks", stored->tensor + "_scales"});
            }
        }
        std::erase_if(modules, [&](std::string const& name) { return !packed_.contains(name); });
        for (auto const& name : original_.names()) {
            std::string const module = name.substr(0, name.rfind('.'));
            if (modules.contains(module) || modules.contains(module.substr(0, module.rfind(".map."))) ||
                packed_.is_extra(name)) {
                written_.insert(name);
            }
        }
    }

    /// A layer in tensors of its own name, in `type` where the original has none of them and may lack them.
    void add_layer(model_tensors::entry const& layer, io::dtype type, bool may_be_new) {
        linear_layer const& l = *layer.of;
        std::string const weight = l.name + ".weight", bias = l.name + ".bias";
        may_be_new = may_be_new || packed_.contains(l.name) || (l.stored && !is_float(l.stored->weight_name()));
        if (std::holds_alternative<packed_matrix>(l.weight)) {
            written_.insert(weight);
        } else if (l.transposed && !l.stored) {
            matrix const turned = std::get<matrix>(l.weight).transpose(); // (in, out)
            add(weight, tensor_of(turned), find(weight, may_be_new), type);
        } else {
            add(weight, tensor_of(std::get<matrix>(l.weight)), find(weight, may_be_new), type);
        }
        if (l.bias.size() > 0) {
            auto const* original = original_.contains(bias) ? &original_.at(bias) : nullptr;
            add(bias, tensor_of(l.bias), original != nullptr ? original : find(bias, may_be_new || !layer.biased),
                type);
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
    io::packed_reader packed_;
    io::safetensors_writer file_;
    std::set<std::string> written_;  // and what is not to be copied
    std::set<std::string> left_out_; // not to be copied either
};

DETENT_INLINE save_plan plan_save(model_tensors const& model, std::optional<io::packed_layout> wanted) {
    auto const layout = wanted.value_or(io::packed_layout::gptq);
    if (io::layout_of(layout).add == nullptr) {
        throw error(std::string(io::layout_of(layout).title) + " layout", "is read, not written");
    }
    inputs_to_store(model); // whether they can be stored
    if (auto const obstacle = layout_obstacle(model, layout)) {
        if (wanted) {
            throw *obstacle;
        }
        return {io::packed_layout::detent, obstacle->what()};
    }
    return {layout, {}};
}

/// Adds the modules whose weights are in the original, but in no layer of the model, such as heads that are not loaded,
/// and those that the model has no tensors of.
DETENT_INLINE void add_other_modules(std::vector<io::layer_to_save>& layers, model_tensors const& model,
                                     io::checkpoint const& original) {
    std::set<std::string> known;
    for (auto const& layer : layers) {
        known.insert(layer.name);
    }
    auto names = model.left_out;
    for (auto const& name : original.names()) {
        if (original.at(name).shape.size() == 2) {
            names.push_back(name);
        }
    }
    for (auto const& name : names) {
        std::string const module = name.substr(0, name.rfind(".weight"));
        if (name.ends_with(".weight") && known.insert(module).second) {
            layers.push_back({.name = module, .in_block = false});
        }
    }
}

DETENT_INLINE void copy_sidecars(std::filesystem::path const& source, std::filesystem::path const& directory) {
    constexpr std::array<std::string_view, 18> begins{"tokenizer",        "vocab",
                                                      "merges",           "special_tokens_map",
                                                      "added_tokens",     "generation_config",
                                                      "chat_template",    "preprocessor_config",
                                                      "processor_config", "image_processor",
                                                      "spiece",           "sentencepiece",
                                                      "license",          "licence",
                                                      "copying",          "notice",
                                                      "use_policy",       "readme.md"};
    std::error_code failure;
    for (auto const& entry : std::filesystem::directory_iterator(source, failure)) {
        std::string const name = entry.path().filename().string();
        std::string lower = name;
        std::ranges::transform(lower, lower.begin(),
                               [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        bool const wanted = std::ranges::any_of(begins, [&](auto const begin) { return lower.starts_with(begin); });
        if (!wanted || lower.ends_with(".safetensors") || lower.ends_with(".bin") || !entry.is_regular_file(failure)) {
            continue;
        }
        auto const target = directory / (lower == "readme.md" ? "README.source.md" : name);
        io::write_text(target, io::read_text(entry.path())); // as it was or as it shall be, also on a full disk
    }
}

/// What a saver knows of the model and keeps for its files.
struct model_saver::parts {
    parts(model_tensors const& model, std::filesystem::path const& from, std::string const& description,
          std::optional<io::packed_layout> wanted, std::filesystem::path const& scratch)
        : plan(plan_save(model, wanted)), source(from), original(from),
          saver(original, io::quantization_settings::of(from)), layout(io::layout_of(plan.layout)) {
        auto const inputs = inputs_to_store(model);
        auto layers = layers_to_save(model, inputs);
        add_other_modules(layers, model, original);
        if (!packed_layers(model).empty() || !inputs.empty() || std::ranges::any_of(model.layers, has_new_bias)) {
            settings = layout.settings(layers);
            settings["description"] = description;
        }
        if (!scratch.empty()) {
            saver.keep_in_file(scratch);
        }
        saver.begin(model);
    }

    save_plan plan;
    std::filesystem::path source;
    io::checkpoint original;
    tensor_saver saver;
    io::checkpoint_layout const& layout;
    nlohmann::json settings; // null where nothing is quantized
};

DETENT_INLINE model_saver::model_saver(model_tensors const& model, std::filesystem::path const& source,
                                       std::string const& description, std::optional<io::packed_layout> wanted,
                                       std::filesystem::path const& scratch)
    : parts_(std::make_unique<parts>(model, source, description, wanted, scratch)) {}
DETENT_INLINE model_saver::model_saver(model_saver&&) noexcept = default;
DETENT_INLINE model_saver& model_saver::operator=(model_saver&&) noexcept = default;
DETENT_INLINE model_saver::~model_saver() = default;

DETENT_INLINE save_plan const& model_saver::plan() const { return parts_->plan; }

DETENT_INLINE void model_saver::add(model_tensors const& part) {
    parts_->saver.add(part, parts_->layout, parts_->settings);
}

DETENT_INLINE void model_saver::write(std::filesystem::path const& directory,
                                      function_ref<void(nlohmann::json&)> configure, index_t shard_bytes) {
    auto configuration = io::read_json(parts_->source / "config.json");
    configuration.erase("quantization_config");
    configure(configuration);
    if (!parts_->settings.is_null()) {
        configuration["quantization_config"] = parts_->settings;
    }
    copy_sidecars(parts_->source, directory);
    parts_->saver.finish().save_checkpoint(directory, shard_bytes);
    io::write_text(directory / "config.json", configuration.dump(2) + "\n");
    io::checkpoint const written(directory);
    io::read_json(directory / "config.json");
}

DETENT_INLINE save_plan save_model(model_tensors const& model, std::filesystem::path const& source,
                                   std::filesystem::path const& directory, std::string const& description,
                                   std::optional<io::packed_layout> wanted,
                                   function_ref<void(nlohmann::json&)> configure, index_t shard_bytes) {
    model_saver saver(model, source, description, wanted);
    if (std::error_code ignored; std::filesystem::equivalent(source, directory, ignored)) {
        throw error(directory.string(), "is where the model came from; saving there would lose its weights");
    }
    saver.add(model);
    io::work_directory work(directory);
    saver.write(work.result(), configure, shard_bytes);
    work.commit(io::files_of_checkpoint(directory));
    return saver.plan();
}

DETENT_INLINE void configure_head(nlohmann::json& configuration, bool tied, std::filesystem::path const& path) {
    if (parse_configuration(configuration, path.string()).tied_embeddings != tied) {
        configuration["tie_word_embeddings"] = tied;
    }
}

DETENT_INLINE save_plan write_decoder(decoder const& model, block_sequence& blocks, std::filesystem::path const& source,
                                      std::filesystem::path const& directory, std::string const& description,
                                      std::optional<io::packed_layout> wanted, std::filesystem::path const& scratch,
                                      index_t shard_bytes) {
    model_saver saver(tensors_of(model), source, description, wanted, scratch);
    saver.add(tensors_of_ends(model));
    for (index_t i = 0; i < blocks.size(); ++i) {
        saver.add(tensors_of_block(model, i, blocks.open(i)));
        blocks.close(i);
    }
    auto const configure = [&](nlohmann::json& configuration) {
        configure_head(configuration, !model.lm_head, source / "config.json");
    };
    saver.write(directory, configure, shard_bytes);
    return saver.plan();
}

DETENT_INLINE save_plan save_decoder(decoder const& model, std::filesystem::path const& source,
                                     std::filesystem::path const& directory, std::string const& description,
                                     std::optional<io::packed_layout> wanted, index_t shard_bytes) {
    auto const configure = [&](nlohmann::json& configuration) {
        configure_head(configuration, !model.lm_head, source / "config.json");
    };
    return save_model(tensors_of(model), source, directory, description, wanted, configure, shard_bytes);
}

} // namespace detent::inline DETENT_ABI
