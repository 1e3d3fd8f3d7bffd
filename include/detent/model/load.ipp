// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/assemble_decoder.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/load.hpp"
#include "detent/quantizer/named_grid.hpp"
#include "detent/scale/any_grid.hpp"

namespace detent::inline DETENT_ABI {

/// The quantizer of a layer's input that `stored` describes. @throws what `wrong(tensor, problem)` answers, where
/// `tensor` is `input_grid` or `input_zero`, when there is no such grid or it does not go with the zero point.
template <class Wrong> activation_quantizer input_quantizer(io::stored_input const& stored, Wrong const& wrong) {
    std::vector<any_grid> found;
    auto const name = grid_name::parse(stored.grid);
    if (!visit_grid(name, [&](auto grid) { found.emplace_back(grid, name.text()); })) {
        throw wrong("input_grid", "names the grid '" + io::printable(stored.grid) + "', which is unknown");
    }
    any_grid const& grid = found.front();
    activation_rounding how{.width = stored.width, .kind = stored.kind, .unit = stored.unit, .shifts = stored.shifts};
    if (!stored.zeros.empty() && !grid.has_zero()) {
        throw wrong("input_zero", "is there, but the grid '" + grid.name() + "' has no zero point");
    }
    if (!stored.scales.empty() && stored.zeros.empty() && grid.has_zero()) {
        throw wrong("input_zero", "is missing, but the grid '" + grid.name() + "' has a zero point");
    }
    auto const [low, high] = grid.numbers();
    for (std::size_t i = 0; i < stored.scales.size(); ++i) {
        float const zero = stored.zeros.empty() ? 0.0F : stored.zeros[i];
        if (grid.has_zero() && !(zero >= low && zero <= high && zero == std::nearbyint(zero))) {
            throw wrong("input_zero", "holds what is no integer from " + std::to_string(std::lround(low)) + " to " +
                                          std::to_string(std::lround(high)));
        }
        how.fixed.push_back({stored.scales[i], zero});
    }
    return activation_quantizer(grid, std::move(how));
}

/// The weights of a checkpoint, float or packed, each checked for its shape and for being finite.
class checkpoint_weights {
public:
    explicit checkpoint_weights(io::checkpoint const& checkpoint, io::packed_layout layout = io::packed_layout::gptq_v2)
        : checkpoint_(checkpoint), packed_(checkpoint, layout) {}

    /// The tensor as floats; `shape` {n, 1} asks for a vector of n. Throws `error` naming checkpoint and tensor when it
    /// is missing, has another shape or type, or holds NaN or infinity.
    matrix tensor(std::string const& name, extents shape) const {
        auto const vector_or_matrix =
            shape.cols == 1 ? std::vector<index_t>{shape.rows} : std::vector<index_t>{shape.rows, shape.cols};
        return tensor(name, shape, vector_or_matrix);
    }

    /// The numbers of a tensor of shape `expected`, in their order, as a matrix of `shape`. Throws like the other.
    matrix tensor(std::string const& name, extents shape, std::vector<index_t> const& expected) const {
        auto const& stored = checkpoint_.at(name);
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

    /// Whether the checkpoint has this tensor.
    bool contains(std::string const& name) const { return checkpoint_.contains(name); }

    /// The layer of shape (out, in) whose name and place are known, and how its input is rounded: packed or float under
    /// its own name, or else float in a tensor that it shares with others. Throws like `tensor`, and when the checkpoint
    /// has a bias that the configuration does not know: leaving it out would change the model.
    linear_layer linear(linear_layer layer, extents shape, bool biased) const {
        std::string const& name = layer.name;
        bool const own = !layer.stored || packed_.contains(name) || checkpoint_.contains(name + ".weight");
        if (packed_.contains(name)) {
            layer.weight = packed_.read(name, shape);
        } else if (!own) {
            layer.weight = shared_weight(*layer.stored, shape, layer.transposed);
        } else if (layer.transposed) {
            layer.weight = matrix(tensor(name + ".weight", {shape.cols, shape.rows}).transpose());
        } else {
            layer.weight = tensor(name + ".weight", shape);
        }
        std::string const bias = own ? name + ".bias" : shared_bias(*layer.stored);
        if (biased) {
            layer.bias = own ? float_vector(tensor(bias, {shape.rows, 1}).col(0)) : shared_bias(*layer.stored, shape);
        } else if (checkpoint_.contains(bias)) {
            throw error(io::subject_of(checkpoint_.path(), bias), "is there, but config.json has no such bias");
        }
        layer.input = input(name, shape.cols);
        return layer;
    }

    /// How the input of layer `name`, `in` numbers wide, is rounded; none where it is not. Throws like `linear`.
    std::optional<activation_quantizer> input(std::string const& name, index_t in) const {
        auto const stored = packed_.input(name, in);
        if (!stored) {
            return {};
        }
        return input_quantizer(*stored, [&](std::string const& tensor, std::string const& problem) {
            return error(io::subject_of(checkpoint_.path(), name + "." + tensor), problem);
        });
    }

private:
    /// The name of a weight that layers share; those of all experts are no modules, and so without `.weight`.
    static std::string shared_name(stored_rows const& at) { return at.tensor + (at.experts > 0 ? "" : at.dot + "weight"); }
    static std::string shared_bias(stored_rows const& at) { return at.tensor + (at.experts > 0 ? "_" : at.dot) + "bias"; }

    /// The rows of a layer in a tensor that it shares: (rows, in), or (in, rows) where that is transposed, of one expert
    /// where there are several.
    matrix shared_weight(stored_rows const& at, extents shape, bool transposed) const {
        extents const one = transposed ? extents{shape.cols, at.rows} : extents{at.rows, shape.cols};
        index_t const all = std::max<index_t>(at.experts, 1);
        auto expected = std::vector<index_t>{one.rows, one.cols};
        if (at.experts > 0) {
            expected.insert(expected.begin(), at.experts);
        }
        matrix const stored = tensor(shared_name(at), {all * one.rows, one.cols}, expected);
        auto const mine = stored.middleRows(at.expert * one.rows, one.rows);
        matrix weight(shape.rows, shape.cols);
        for (index_t i = 0; i < shape.rows; ++i) {
            if (transposed) {
                weight.row(i) = mine.col(at.row(i)).transpose();
            } else {
                weight.row(i) = mine.row(at.row(i));
            }
        }
        return weight;
    }

    float_vector shared_bias(stored_rows const& at, extents shape) const {
        index_t const all = std::max<index_t>(at.experts, 1);
        auto const expected = at.experts > 0 ? std::vector<index_t>{at.experts, at.rows} : std::vector<index_t>{at.rows};
        matrix const stored = tensor(shared_bias(at), {all, at.rows}, expected);
        float_vector bias(shape.rows);
        for (index_t i = 0; i < shape.rows; ++i) {
            bias(i) = stored(at.expert, at.row(i));
        }
        return bias;
    }

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

DETENT_INLINE std::string find_prefix(io::checkpoint const& checkpoint, std::vector<std::string> const& prefixes,
                                      std::string const& tensor) {
    for (auto const& prefix : prefixes) {
        if (checkpoint.contains(prefix + tensor)) {
            return prefix;
        }
    }
    return prefixes.front();
}

DETENT_INLINE std::string attention_name(block const& b, char const* last) {
    return b.query.name.substr(0, b.query.name.rfind('.') + 1) + last;
}

DETENT_INLINE io::packed_layout read_packed_layout(std::filesystem::path const& configuration) {
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

DETENT_INLINE activation_quantizer probability_quantizer(int bits) {
    auto const steps = static_cast<float>((1 << bits) - 1);
    return {find_grid(grid_name::parse("int" + std::to_string(bits))), {1 / steps, 0}};
}

/// @throws error about a tensor of an expert that the model does not have: it would be left out.
DETENT_INLINE void expect_all_experts(decoder const& model, io::checkpoint const& checkpoint) {
    auto const& c = model.configuration;
    for (std::size_t i = 0; c.experts && i < c.layers.size(); ++i) {
        std::string const experts = model.prefix + c.names.blocks + std::to_string(i) + "." + c.names.experts;
        for (auto const& name : checkpoint.names()) {
            if (!name.starts_with(experts)) {
                continue;
            }
            auto const number = name.substr(experts.size(), name.find('.', experts.size()) - experts.size());
            bool const digits = !number.empty() && number.find_first_not_of("0123456789") == std::string::npos;
            if (digits && (number.size() > 6 || std::stol(number) >= c.experts->count)) {
                throw error(io::subject_of(checkpoint.path(), name), "is of an expert that config.json does not have");
            }
        }
    }
}

DETENT_INLINE decoder load_decoder(std::filesystem::path const& directory) {
    auto const c = read_configuration(directory / "config.json");
    io::checkpoint const checkpoint(directory);
    checkpoint_weights source(checkpoint, read_packed_layout(directory / "config.json"));
    // The norm of the first block is never packed, so its weight has this name in every layout.
    std::string const norm = c.norms.input || c.norms.sum ? c.names.attention_norm : c.names.attention_output_norm;
    decoder model =
        assemble_decoder(c, find_prefix(checkpoint, c.names.prefixes, c.names.blocks + "0." + norm + ".weight"), source);
    for (block& b : model.blocks) {
        b.head_input = source.input(attention_name(b), b.heads.head_dim);
        if (auto const probabilities = source.input(probabilities_name(b), 0)) {
            b.heads.probability_bits = probabilities->grid().bits();
            if (!(*probabilities == probability_quantizer(b.heads.probability_bits))) {
                throw error("'" + probabilities_name(b) + "'",
                            "probabilities are rounded to equal steps from 0 to 1 only");
            }
        }
    }
    expect_all_experts(model, checkpoint);
    return model;
}

} // namespace detent::inline DETENT_ABI
