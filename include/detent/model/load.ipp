// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/quantization_settings.hpp"
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

DETENT_INLINE std::optional<activation_quantizer> stored_quantizer(io::tensor_reader const& tensors,
                                                                   std::string const& name, index_t in) {
    auto const stored = io::read_input(tensors, name, in);
    return stored ? std::optional(input_quantizer(*stored,
                                                  [&](std::string const& tensor, std::string const& problem) {
                                                      return tensors.wrong(name + "." + tensor, problem);
                                                  }))
                  : std::nullopt;
}

/// The weights of a checkpoint, float or packed, each checked for its shape and for being finite. It remembers which
/// tensors were asked for.
class checkpoint_weights {
public:
    /// `settings` say how weights are packed. Throws `error` where they are impossible or not supported.
    explicit checkpoint_weights(io::checkpoint const& checkpoint, io::quantization_settings const& settings = {})
        : checkpoint_(checkpoint), packed_(checkpoint, settings) {}

    /// The tensor as floats; `shape` {n, 1} asks for a vector of n. Throws `error` naming checkpoint and tensor when it
    /// is missing, has another shape or type, or holds NaN or infinity.
    matrix tensor(std::string const& name, extents shape) const {
        auto const vector_or_matrix =
            shape.cols == 1 ? std::vector<index_t>{shape.rows} : std::vector<index_t>{shape.rows, shape.cols};
        return tensor(name, shape, vector_or_matrix);
    }

    /// The numbers of a tensor of shape `expected`, in their order, as a matrix of `shape`: all of them, or those of
    /// number `part` of its first dimension. Throws like the other.
    matrix tensor(std::string const& name, extents shape, std::vector<index_t> const& expected,
                  index_t part = 0) const {
        used_.insert(name);
        auto const& whole = checkpoint_.at(name);
        if (whole.shape != expected) {
            throw error(io::subject_of(checkpoint_.path(), name),
                        "has shape " + to_text(whole.shape) + ", but config.json asks for " + to_text(expected));
        }
        matrix values(shape.rows, shape.cols);
        std::size_t const bytes = static_cast<std::size_t>(shape.size() * io::bit_size(whole.type) / 8);
        io::tensor_view const mine{
            whole.type, {shape.rows, shape.cols}, whole.bytes.subspan(static_cast<std::size_t>(part) * bytes, bytes)};
        io::copy_to_floats(mine, name, values.data());
        checkpoint_.release(mine.bytes);
        if (!values.allFinite()) {
            throw error(io::subject_of(checkpoint_.path(), name), "holds NaN or infinity");
        }
        return values;
    }

    /// What the checkpoint and its settings ask for that is not done.
    std::vector<std::string> warnings() const {
        auto all = checkpoint_.warnings();
        all.insert(all.end(), packed_.warnings().begin(), packed_.warnings().end());
        return all;
    }

    /// Whether the checkpoint has this tensor.
    bool contains(std::string const& name) const { return checkpoint_.contains(name); }

    /// The layer of shape (out, in) whose name and place are known, and how its input is rounded: packed or float under
    /// its own name, or else in a tensor that it shares with others. Throws like `tensor`, and when the checkpoint has
    /// a bias that the configuration does not know, as only detent's layout may: leaving it out would change the model,
    /// but where all of it is 0, as in many files of GPTQ.
    linear_layer linear(linear_layer layer, extents shape, bool biased) const {
        std::string const& name = layer.name;
        bool const own = !layer.stored || packed_.contains(name) || checkpoint_.contains(name + ".weight");
        if (packed_.contains(name)) {
            packed_layers_.insert(name);
            layer.weight = packed_.read(name, shape);
        } else if (auto packed = own ? std::nullopt : shared_packed(*layer.stored, shape)) {
            layer.weight = std::move(*packed);
        } else if (!own) {
            layer.weight = shared_weight(*layer.stored, shape, layer.transposed);
        } else if (layer.transposed && !layer.stored) {
            layer.weight = matrix(tensor(name + ".weight", {shape.cols, shape.rows}).transpose());
        } else {
            layer.weight = tensor(name + ".weight", shape);
        }
        std::string const bias = own ? name + ".bias" : layer.stored->bias_name();
        bool const there = checkpoint_.contains(bias);
        if (biased || (there && packed_.has_new_biases())) {
            layer.bias = own ? float_vector(tensor(bias, {shape.rows, 1}).col(0)) : shared_bias(*layer.stored, shape);
        } else if (there && !is_zero_beside_codes(own ? name : layer.stored->tensor, bias)) {
            throw error(io::subject_of(checkpoint_.path(), bias), "is there, but config.json has no such bias");
        }
        layer.input = input(own ? name : layer.stored->tensor, shape.cols);
        return layer;
    }

    /// How the input of layer `name`, `in` numbers wide, is rounded; none where it is not. Throws like `linear`.
    std::optional<activation_quantizer> input(std::string const& name, index_t in) const {
        auto const stored = packed_.input(name, in);
        if (!stored) {
            return {};
        }
        rounded_.insert(name);
        return input_quantizer(*stored, [&](std::string const& tensor, std::string const& problem) {
            return error(io::subject_of(checkpoint_.path(), name + "." + tensor), problem);
        });
    }

    /// @throws error about a tensor that should have been asked for, so that the model is another than the
    /// checkpoint's: of a block, whose names begin with `blocks` and the block's number, below `count`, but for
    /// buffers; or a bias beside a weight that was.
    void expect_all_used(std::string const& blocks, index_t count) const {
        for (auto const& name : checkpoint_.names()) {
            if (used_.contains(name) || is_buffer(name) || packed_.is_extra(name)) {
                continue;
            }
            auto const wrong = [&](std::string const& problem) {
                return error(io::subject_of(checkpoint_.path(), name), problem);
            };
            auto const dot = name.rfind('.');
            std::string const module = name.substr(0, dot), last = dot == std::string::npos ? "" : name.substr(dot + 1);
            if (last == "bias" && used_.contains(module + ".weight")) {
                throw wrong("is there, but config.json has no such bias");
            }
            std::string const number = name.starts_with(blocks)
                                           ? name.substr(blocks.size(), name.find('.', blocks.size()) - blocks.size())
                                           : "";
            if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos) {
                continue; // of no block
            }
            if (number.size() > 6 || std::stol(number) >= count) {
                throw wrong("is of block " + number + ", but config.json has " + std::to_string(count) + " blocks");
            }
            bool const rounds = last.starts_with("input_") && rounded_.contains(module);
            // A map of inputs has tensors of its own below the layer: <layer>.map.<step>.<what>.
            bool const packed =
                packed_layers_.contains(module) || packed_layers_.contains(module.substr(0, module.rfind(".map.")));
            if (!rounds && !packed) {
                throw wrong("is no part of the model that config.json describes");
            }
        }
    }

private:
    /// Whether a tensor is no weight, but what some programs compute once and save: frequencies of rotary positions,
    /// masks of attention.
    static bool is_buffer(std::string const& name) {
        auto const ends = [&](char const* end) { return name.ends_with(end); };
        return name.find("rotary_emb.") != std::string::npos || ends(".inv_freq") || ends(".masked_bias") ||
               ends(".attn.bias") || ends(".attention.bias") || ends(".position_ids");
    }

    /// The rows of a layer in a packed matrix that it shares; nothing where there is none.
    std::optional<packed_matrix> shared_packed(stored_rows const& at, extents shape) const {
        std::optional<packed_matrix> whole;
        if (at.experts > 0) {
            whole = packed_.read_expert(at.tensor, at.experts, at.expert, {at.rows, shape.cols});
            used_.insert({at.tensor + "_blocks", at.tensor + "_scales"});
        } else if (at.dot == "." && packed_.contains(at.tensor)) {
            packed_layers_.insert(at.tensor);
            whole = packed_.read(at.tensor, {at.rows, shape.cols});
        }
        if (!whole) {
            return {};
        }
        std::vector<index_t> rows;
        for (index_t i = 0; i < shape.rows; ++i) {
            rows.push_back(at.row(i));
        }
        try {
            return io::take_rows(*whole, rows);
        } catch (error const& e) {
            throw error(io::subject_of(checkpoint_.path(), at.tensor), e.what());
        }
    }

    /// Whether a bias that the configuration does not know is one of a packed layer that changes nothing.
    bool is_zero_beside_codes(std::string const& name, std::string const& bias) const {
        if (!packed_.contains(name)) {
            return false;
        }
        used_.insert(bias);
        return std::ranges::all_of(io::to_floats(checkpoint_.at(bias), bias), [](float x) { return x == 0; });
    }

    /// The rows of a layer in a tensor that it shares: (rows, in), or (in, rows) where that is transposed, of one
    /// expert where there are several.
    matrix shared_weight(stored_rows const& at, extents shape, bool transposed) const {
        extents const one = transposed ? extents{shape.cols, at.rows} : extents{at.rows, shape.cols};
        auto expected = std::vector<index_t>{one.rows, one.cols};
        if (at.experts > 0) {
            expected.insert(expected.begin(), at.experts);
        }
        matrix const stored = tensor(at.weight_name(), one, expected, at.expert);
        matrix weight(shape.rows, shape.cols);
        for (index_t i = 0; i < shape.rows; ++i) {
            if (transposed) {
                weight.row(i) = stored.col(at.row(i)).transpose();
            } else {
                weight.row(i) = stored.row(at.row(i));
            }
        }
        return weight;
    }

    float_vector shared_bias(stored_rows const& at, extents shape) const {
        auto const expected =
            at.experts > 0 ? std::vector<index_t>{at.experts, at.rows} : std::vector<index_t>{at.rows};
        matrix const stored = tensor(at.bias_name(), {1, at.rows}, expected, at.expert);
        float_vector bias(shape.rows);
        for (index_t i = 0; i < shape.rows; ++i) {
            bias(i) = stored(0, at.row(i));
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
    mutable std::set<std::string> used_;          // tensors
    mutable std::set<std::string> packed_layers_; // with codes
    mutable std::set<std::string> rounded_;       // layers whose inputs are rounded
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

DETENT_INLINE activation_quantizer probability_quantizer(int bits) {
    auto const steps = static_cast<float>((1 << bits) - 1);
    return {find_grid(grid_name::parse("int" + std::to_string(bits))), {1 / steps, 0}};
}

/// The prefix of a decoder's tensors, alone or as the language model of a larger one: that of the first block's. Where
/// there is none, the usual one, which the error about a missing tensor then names.
DETENT_INLINE std::string find_decoder_prefix(io::checkpoint const& checkpoint, tensor_names const& n) {
    std::vector<std::string> prefixes = n.prefixes;
    for (auto const& alone : n.prefixes) {
        prefixes.push_back("language_model." + alone);
    }
    prefixes.push_back("model.language_model.");
    auto const names = checkpoint.names();
    for (auto const& prefix : prefixes) {
        std::string const first = prefix + n.blocks + "0.";
        if (std::ranges::any_of(names, [&](std::string const& name) { return name.starts_with(first); })) {
            return prefix;
        }
    }
    return prefixes.front();
}

/// Follows the checkpoint where it has an output head and the configuration says that the embeddings serve as one.
DETENT_INLINE void settle_head(decoder& model, io::checkpoint const& checkpoint) {
    auto const& c = model.configuration;
    std::string const bias = c.names.head + ".bias";
    if (!model.lm_head && checkpoint.contains(bias)) {
        throw error(io::subject_of(checkpoint.path(), bias), "is there, but the head has no weights of its own");
    }
    if (!c.tied_embeddings || !model.lm_head) {
        return;
    }
    if (model.lm_head->weight == model.embeddings.weight && model.lm_head->bias.size() == 0) {
        model.lm_head.reset();
    } else {
        model.warnings.push_back(
            "config.json says that the embeddings are the output head too, but the checkpoint has '" +
            model.lm_head->name + ".weight', which is used");
    }
}

/// Reads how the attention of a block rounds what it reads.
DETENT_INLINE void finish_block(block& b, checkpoint_weights const& source) {
    b.head_input = source.input(attention_name(b), b.heads.head_dim);
    if (auto const probabilities = source.input(probabilities_name(b), 0)) {
        b.heads.probability_bits = probabilities->grid().bits();
        if (!(*probabilities == probability_quantizer(b.heads.probability_bits))) {
            throw error("'" + probabilities_name(b) + "'", "probabilities are rounded to equal steps from 0 to 1 only");
        }
    }
}

/// The same for all blocks, whose names are `names` and a number. @throws error where they have something in the
/// checkpoint that nobody has asked for.
DETENT_INLINE void finish_blocks(std::vector<block>& blocks, checkpoint_weights const& source,
                                 std::string const& names) {
    for (block& b : blocks) {
        finish_block(b, source);
    }
    source.expect_all_used(names, std::ssize(blocks));
}

/// The stamp of a file, of which reading says what is wrong when it is not there.
DETENT_INLINE io::file_stamp stamp_if_there(std::filesystem::path const& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored) ? io::stamp_of(path) : io::file_stamp{};
}

/// Files that are open, and how to make a decoder of them.
struct decoder_file::parts {
    explicit parts(std::filesystem::path const& directory)
        : configuration_path(directory / "config.json"), configuration_stamp(stamp_if_there(configuration_path)),
          configuration(read_configuration(configuration_path)), checkpoint(directory),
          source(checkpoint, io::quantization_settings::of(directory)) {
        auto& names = configuration.names;
        std::string const prefix = find_decoder_prefix(checkpoint, names);
        if (prefix.starts_with("language_model.") && !checkpoint.contains(names.head + ".weight")) {
            names.head = "language_model." + names.head;
        }
        ends = assemble_ends(configuration, prefix, source);
        ends.warnings = source.warnings();
        settle_head(ends, checkpoint);
        checkpoint.release();
    }

    std::filesystem::path configuration_path;
    io::file_stamp configuration_stamp;
    model_configuration configuration;
    io::checkpoint checkpoint;
    checkpoint_weights source;
    decoder ends;
};

DETENT_INLINE decoder_file::decoder_file(std::filesystem::path const& directory)
    : parts_(std::make_unique<parts>(directory)) {}
DETENT_INLINE decoder_file::decoder_file(decoder_file&&) noexcept = default;
DETENT_INLINE decoder_file& decoder_file::operator=(decoder_file&&) noexcept = default;
DETENT_INLINE decoder_file::~decoder_file() = default;

DETENT_INLINE decoder const& decoder_file::ends() const { return parts_->ends; }

DETENT_INLINE decoder decoder_file::take_ends() {
    decoder taken = std::move(parts_->ends);
    parts_->ends.prefix = taken.prefix; // of the names of blocks
    return taken;
}

DETENT_INLINE index_t decoder_file::size() const { return std::ssize(parts_->configuration.layers); }

DETENT_INLINE block decoder_file::read_block(index_t i) const {
    expect_unchanged();
    block b = model_assembly(parts_->configuration, parts_->ends.prefix, parts_->source).make_block(i);
    finish_block(b, parts_->source);
    parts_->checkpoint.release();
    return b;
}

DETENT_INLINE void decoder_file::expect_all_read() const {
    parts_->source.expect_all_used(parts_->ends.prefix + parts_->configuration.names.blocks, size());
}

DETENT_INLINE void decoder_file::expect_unchanged() const {
    io::expect_stamp(parts_->configuration_path, parts_->configuration_stamp);
    parts_->checkpoint.expect_unchanged();
}

DETENT_INLINE io::checkpoint const& decoder_file::weights() const { return parts_->checkpoint; }

DETENT_INLINE decoder load_decoder(std::filesystem::path const& directory) {
    decoder_file file(directory);
    decoder model = file.take_ends();
    for (index_t i = 0; i < file.size(); ++i) {
        model.blocks.push_back(file.read_block(i));
    }
    file.expect_all_read();
    return model;
}

} // namespace detent::inline DETENT_ABI
