// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/io/gguf_file.hpp"
#include "detent/io/row_order.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/assemble_decoder.hpp"
#include "detent/model/configuration.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/gguf_architecture.hpp"
#include "detent/model/gguf_configuration.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/load_gguf.hpp"

namespace detent::inline DETENT_ABI {

/// The order that undoes another.
inline std::vector<index_t> inverse_order(std::vector<index_t> const& order) {
    std::vector<index_t> inverse(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        inverse[static_cast<std::size_t>(order[i])] = static_cast<index_t>(i);
    }
    return inverse;
}

/// What the tensors of a file say of its model.
inline gguf_contents contents_of(io::gguf_file const& file) {
    auto const doubles = [&](char const* name) {
        std::vector<double> numbers;
        if (file.contains(name)) {
            auto const floats = file.floats(name);
            numbers.assign(floats.begin(), floats.end());
        }
        return numbers;
    };
    bool const one = file.contains("blk.0.attn_qkv.weight");
    return {.vocabulary = file.at("token_embd.weight").matrix_shape().rows,
            .head = file.contains("output.weight"),
            .two_norms = file.contains("blk.0.attn_norm_2.weight"),
            .attention_bias = file.contains(one ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias"),
            .mlp_bias = file.contains("blk.0.ffn_down.bias"),
            .divisors = doubles("rope_freqs.weight"),
            .short_divisors = doubles("rope_factors_short.weight"),
            .long_divisors = doubles("rope_factors_long.weight")};
}

DETENT_INLINE nlohmann::json read_gguf_configuration(io::gguf_file const& file) {
    return gguf_configuration(file.metadata(), contents_of(file));
}

/// The weights of a GGUF file under the names of a Hugging Face checkpoint. It remembers which tensors were asked for.
class gguf_source {
public:
    gguf_source(io::gguf_file const& file, model_configuration const& c, gguf_architecture const& a,
                std::string const& prefix, gguf_weights weights)
        : file_(file), c_(c), places_(gguf_places(c, prefix, a)), weights_(weights) {}

    /// The numbers of a norm or table; `name` ends in `.weight` or `.bias`, or that of sinks in neither.
    matrix tensor(std::string const& name, extents shape) {
        auto const dot = name.rfind('.');
        std::string const last = name.substr(dot + 1);
        bool const whole = last != c_.names.norm_weight && last != c_.names.norm_bias;
        std::string const stored = place(whole ? name : name.substr(0, dot)).tensor +
                                   (!whole && last == c_.names.norm_bias ? ".bias" : ".weight");
        auto const numbers = floats(stored, shape.size());
        return Eigen::Map<matrix const>(numbers.data(), shape.rows, shape.cols);
    }

    bool contains(std::string const& name) const {
        return name == c_.names.head + ".weight" && file_.contains("output.weight");
    }

    linear_layer linear(linear_layer layer, extents shape, bool biased) {
        gguf_place const& at = place(layer.name);
        std::string const weight = at.tensor + ".weight", bias = at.tensor + ".bias";
        auto const order = at.turned ? inverse_order(turned_rows(layer.name, shape)) : std::vector<index_t>();
        used_.insert(weight);
        auto const& tensor = file_.at(weight);
        extents const all = tensor.matrix_shape();
        index_t const first = at.expert * shape.rows + at.first;
        bool const flat = tensor.shape.size() == 1 && shape.rows == 1; // a row that is stored as a vector
        if ((all.cols != shape.cols && !flat) || first + shape.rows > (flat ? 1 : all.rows)) {
            throw error(io::subject_of(file_.path(), weight),
                        "is of shape (" + std::to_string(all.rows) + ", " + std::to_string(all.cols) + "), but rows " +
                            std::to_string(first) + " to " + std::to_string(first + shape.rows) + " of " +
                            std::to_string(shape.cols) + " were looked for");
        }
        if (tensor.type->plain) {
            layer.weight = plain_rows(weight, first, shape, order);
        } else {
            packed_matrix w = file_.packed_rows(weight, first, first + shape.rows);
            set_unit(w, at);
            read_packed(layer, order.empty() ? std::move(w) : io::move_rows(w, order));
        }
        if (file_.contains(bias)) {
            layer.bias = bias_rows(bias, first, shape.rows, order);
        } else if (biased) {
            throw error(io::subject_of(file_.path(), bias), "is missing");
        }
        return layer;
    }

    /// @throws error about a tensor that should have been asked for.
    void expect_all_used() const {
        for (auto const& tensor : file_.tensors()) {
            if (!used_.contains(tensor.name) && !tensor.name.starts_with("rope_f")) {
                throw error(io::subject_of(file_.path(), tensor.name), "is no part of the model that is known");
            }
        }
    }

private:
    gguf_place const& place(std::string const& name) const {
        auto const found = places_.find(name);
        return found != places_.end() ? found->second
                                      : throw error("'" + io::printable(name) + "'", "has no place in GGUF files");
    }

    /// The order of the rows of query or key of a block, see `gguf_place::turned`.
    std::vector<index_t> turned_rows(std::string const& name, extents shape) const {
        auto const start = name.find(c_.names.blocks) + c_.names.blocks.size();
        auto const& layer = c_.layers[static_cast<std::size_t>(std::stol(name.substr(start)))];
        index_t const rotated = layer.rotary ? layer.rotary->dimensions : 0;
        return rotary_rows(shape.rows / c_.heads.head_dim, c_.heads.head_dim, rotated);
    }

    std::vector<float> floats(std::string const& name, index_t size) {
        used_.insert(name);
        auto numbers = file_.floats(name);
        if (std::ssize(numbers) != size) {
            throw error(io::subject_of(file_.path(), name), "has " + std::to_string(numbers.size()) + " numbers, but " +
                                                                std::to_string(size) + " were looked for");
        }
        if (!std::ranges::all_of(numbers, [](float x) { return is_finite(x); })) {
            throw error(io::subject_of(file_.path(), name), "holds NaN or infinity");
        }
        return numbers;
    }

    matrix plain_rows(std::string const& name, index_t first, extents shape, std::vector<index_t> const& order) const {
        auto const whole = file_.plain(name);
        auto const bytes = static_cast<std::size_t>(shape.size() * io::bit_size(whole.type) / 8);
        auto const begin = static_cast<std::size_t>(first * shape.cols * io::bit_size(whole.type) / 8);
        io::tensor_view const mine{whole.type, {shape.rows, shape.cols}, whole.bytes.subspan(begin, bytes)};
        matrix stored(shape.rows, shape.cols);
        io::copy_to_floats(mine, name, stored.data());
        if (!stored.allFinite()) {
            throw error(io::subject_of(file_.path(), name), "holds NaN or infinity");
        }
        matrix w = order.empty() ? std::move(stored) : matrix(shape.rows, shape.cols);
        for (index_t row = 0; row < std::ssize(order); ++row) {
            w.row(row) = stored.row(order[static_cast<std::size_t>(row)]);
        }
        return w;
    }

    float_vector bias_rows(std::string const& name, index_t first, index_t rows, std::vector<index_t> const& order) {
        auto const all = floats(name, file_.at(name).matrix_shape().size());
        if (first + rows > std::ssize(all)) {
            throw error(io::subject_of(file_.path(), name), "has too few numbers");
        }
        float_vector bias(rows);
        for (index_t row = 0; row < rows; ++row) {
            index_t const from = order.empty() ? row : order[static_cast<std::size_t>(row)];
            bias(row) = all[static_cast<std::size_t>(first + from)];
        }
        return bias;
    }

    /// Gives NVFP4's scales their unit, which is a tensor of its own.
    void set_unit(packed_matrix& w, gguf_place const& at) {
        std::string const name = at.tensor + ".scale";
        if (!file_.contains(name)) {
            return;
        }
        auto const units = floats(name, file_.at(name).matrix_shape().size());
        float const unit =
            units.empty() ? 1.0F : units[std::min(units.size() - 1, static_cast<std::size_t>(at.expert))];
        if (w.scales.format.has_unit()) {
            io::set_scale_unit(w, unit);
        } else if (unit != 1) {
            throw error(io::subject_of(file_.path(), name), "is beside blocks whose scales have no unit");
        }
    }

    void read_packed(linear_layer& layer, packed_matrix w) const {
        if (weights_ == gguf_weights::packed) {
            layer.weight = std::move(w);
            return;
        }
        matrix floats(w.shape().rows, w.shape().cols);
        io::copy_to_floats(w, 0, w.shape().rows, floats.data());
        layer.weight = std::move(floats);
    }

    io::gguf_file const& file_;
    model_configuration const& c_;
    std::map<std::string, gguf_place> places_;
    gguf_weights weights_;
    std::set<std::string> used_;
};

DETENT_INLINE decoder load_gguf(std::filesystem::path const& path, gguf_weights weights) {
    io::gguf_file const file(path);
    auto const json = read_gguf_configuration(file);
    auto c = parse_configuration(json, path.string());
    float const offset = std::exchange(c.norm_offset, 0.0F); // files have it in the norms
    std::string const prefix = c.names.prefixes.front();
    gguf_source source(file, c, gguf_architecture_of(file.metadata()), prefix, weights);
    decoder model = assemble_decoder(c, prefix, source);
    source.expect_all_used();
    model.configuration.norm_offset = offset; // as of a checkpoint, should the model be saved as one
    return model;
}

} // namespace detent::inline DETENT_ABI
