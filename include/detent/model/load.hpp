// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"

namespace detent::inline DETENT_ABI {

/// The weights of a checkpoint, float or packed, each checked for its shape and for being finite.
class checkpoint_weights {
public:
    explicit checkpoint_weights(io::checkpoint const& checkpoint, io::packed_layout layout = io::packed_layout::gptq_v2)
        : checkpoint_(checkpoint), packed_(checkpoint, layout) {}

    /// The tensor as floats; `shape` {n, 1} asks for a vector of n. Throws `error` naming checkpoint and tensor when it
    /// is missing, has another shape or type, or holds NaN or infinity.
    matrix tensor(std::string const& name, extents shape) const {
        auto const& stored = checkpoint_.at(name);
        auto const expected =
            shape.cols == 1 ? std::vector<index_t>{shape.rows} : std::vector<index_t>{shape.rows, shape.cols};
        if (stored.shape != expected) {
            throw error(io::subject_of(checkpoint_.path(), name),
                        "has shape " + to_text(stored.shape) + ", but config.json asks for " + to_text(expected));
        }
        matrix values(shape.rows, shape.cols);
        io::copy_to_floats(stored, name, values.data());
        if (!values.allFinite()) {
            throw error(io::subject_of(checkpoint_.path(), name), "holds NaN or infinity");
        }
        return values;
    }

    /// The layer `name` of shape (out, in). Throws like `tensor`, and when the checkpoint has a bias that the
    /// configuration does not know: leaving it out would change the model.
    linear_layer linear(std::string const& name, extents shape, bool biased) const {
        linear_layer layer{.name = name, .weight = {}, .bias = {}};
        if (packed_.contains(name)) {
            layer.weight = packed_.read(name, shape);
        } else {
            layer.weight = tensor(name + ".weight", shape);
        }
        if (biased) {
            layer.bias = tensor(name + ".bias", {shape.rows, 1});
        } else if (checkpoint_.contains(name + ".bias")) {
            throw error(io::subject_of(checkpoint_.path(), name + ".bias"),
                        "is there, but config.json has no such bias");
        }
        return layer;
    }

private:
    static std::string to_text(std::vector<index_t> const& shape) {
        std::string text = "[";
        for (index_t const extent : shape) {
            text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
        }
        return text + "]";
    }

    io::checkpoint const& checkpoint_;
    io::packed_reader packed_;
};

/// What stands before the names of all tensors but lm_head's: Hugging Face writes one with the model's head and a
/// shorter or none without it.
inline std::string find_prefix(io::checkpoint const& checkpoint, model_family family) {
    auto const prefixes = family == model_family::llama ? std::vector<std::string>{"model.", ""}
                                                        : std::vector<std::string>{"model.decoder.", "decoder.", ""};
    for (auto const& prefix : prefixes) {
        if (checkpoint.contains(prefix + "embed_tokens.weight")) {
            return prefix;
        }
    }
    return prefixes.front(); // the error about the missing tensor then names the usual one
}

/// The layout of a checkpoint's packed layers. @throws error when its quantization is not one this library reads.
inline io::packed_layout read_packed_layout(std::filesystem::path const& configuration) {
    auto const json = io::read_json(configuration);
    auto const settings = json.find("quantization_config");
    if (settings == json.end() || settings->is_null()) {
        return io::packed_layout::gptq_v2; // nothing is packed
    }
    auto const text = [&](char const* field, char const* missing) {
        auto const found = settings->find(field);
        return found != settings->end() && found->is_string() ? found->get<std::string>() : std::string(missing);
    };
    std::string const method = text("quant_method", "none");
    if (method == "detent") {
        return io::packed_layout::detent;
    }
    if (method == "owq") {
        return io::packed_layout::owq;
    }
    std::string const format = text("checkpoint_format", text("format", "gptq").c_str());
    if (method != "gptq" || (format != "gptq" && format != "gptq_v2")) {
        throw error(configuration.string() + ", field 'quantization_config'",
                    "quant_method '" + io::printable(method) + "' with checkpoint_format '" + io::printable(format) +
                        "' is not supported");
    }
    return format == "gptq" ? io::packed_layout::gptq_v1 : io::packed_layout::gptq_v2;
}

/// Reads `config.json` and the safetensors of a Hugging Face directory with float weights (F32, F16, BF16) or packed
/// ones, as `save_decoder` writes them. @throws error naming the file and the field or tensor that is missing, wrong or
/// not supported.
inline decoder load_decoder(std::filesystem::path const& directory) {
    auto const configuration = read_configuration(directory / "config.json");
    io::checkpoint const checkpoint(directory);
    checkpoint_weights source(checkpoint, read_packed_layout(directory / "config.json"));
    return assemble_decoder(configuration, find_prefix(checkpoint, configuration.family), source);
}

} // namespace detent::inline DETENT_ABI
