// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <optional>
#include <set>
#include <string>
#include <variant>

#include <nlohmann/json.hpp>

#include "detent/io/json.hpp"
#include "detent/model/save.hpp"
#include "detent/quantizer/parse_spec.hpp"
#include "model_size.hpp"
#include "specification.hpp"

using namespace detent;

std::optional<double> bits_per_weight(decoder const& model) {
    double bits = 0, weights = 0;
    for (auto const& [name, w] : packed_layers(model)) {
        auto const size = static_cast<double>(w->shape().size());
        bits += size * w->bits_per_weight();
        weights += size;
    }
    return weights > 0 ? std::optional(bits / weights) : std::nullopt;
}

double bytes_of(std::filesystem::path const& model) {
    if (!std::filesystem::is_directory(model)) {
        return static_cast<double>(std::filesystem::file_size(model));
    }
    double bytes = 0;
    for (auto const& entry : std::filesystem::directory_iterator(model)) {
        auto const kind = entry.path().extension();
        if (entry.is_regular_file() && (kind == ".safetensors" || kind == ".gguf")) {
            bytes += static_cast<double>(entry.file_size());
        }
    }
    return bytes;
}

std::optional<double> stored_bits_per_weight(std::filesystem::path const& directory, io::checkpoint const& file) {
    std::optional<decoder> model;
    try {
        model = planned(read_configuration(directory / "config.json"), spec::parse("int8"), file);
    } catch (error const&) { // of no known family
        return {};
    }
    std::set<std::string> layers; // without the prefix, which may be another in the file
    double weights = 0, bytes = 0;
    for (auto const& layer : tensors_of(*model).layers) {
        if (std::holds_alternative<packed_matrix>(layer.of->weight)) {
            std::string const& name = layer.of->stored ? layer.of->stored->tensor : layer.of->name;
            layers.insert(name.substr(model->prefix.size()));
            weights += static_cast<double>(layer.of->shape().size());
        }
    }
    for (auto const& name : file.names()) {
        bool found = false;
        for (std::size_t end = name.rfind('.'); !found && end != std::string::npos && end > 0;) {
            for (std::size_t begin = 0; !found && begin < end; begin = name.find('.', begin) + 1) {
                found = layers.contains(name.substr(begin, end - begin));
            }
            end = name.rfind('.', end - 1);
        }
        if (found && !name.ends_with(".bias")) {
            bytes += static_cast<double>(file.at(name).bytes.size());
        }
    }
    return bytes > 0 ? std::optional(8 * bytes / weights) : std::nullopt;
}

model_numbers numbers_of(decoder const& model) {
    model_numbers n;
    auto const tensors = tensors_of(model);
    for (auto const& layer : tensors.layers) {
        auto const size = static_cast<double>(layer.of->shape().size());
        n.all += size + (layer.biased ? static_cast<double>(layer.of->shape().rows) : 0);
        bool const packed = layer.in_block && std::holds_alternative<packed_matrix>(layer.of->weight);
        n.layers += packed ? size : 0;
    }
    for (auto const& [name, tensor] : tensors.floats) {
        n.all += static_cast<double>(tensor.numbers.size());
    }
    return n;
}

packed_size packed_numbers(decoder const& model) {
    packed_size n;
    for (auto const& layer : tensors_of(model).layers) {
        if (std::holds_alternative<packed_matrix>(layer.of->weight)) {
            auto const size = static_cast<double>(layer.of->shape().size());
            n.packed += size;
            n.replaced += layer.may_be_new && model.configuration.tied_embeddings ? 0 : size;
        }
    }
    return n;
}

int float_bits(std::filesystem::path const& configuration) {
    auto const json = io::read_json(configuration);
    for (auto const* field : {"dtype", "torch_dtype"}) {
        if (auto const found = json.find(field); found != json.end() && found->is_string()) {
            return found->get<std::string>() == "float32" ? 32 : 16;
        }
    }
    return 16;
}
