// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/half.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/io/gguf_writer.hpp"
#include "detent/io/json.hpp"
#include "detent/io/row_order.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/exact_numbers.hpp"
#include "detent/model/gguf_architecture.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/load.hpp"
#include "detent/model/save_gguf.hpp"
#include "detent/model/write_gguf_tokenizer.hpp"

namespace detent::inline DETENT_ABI {

/// A layer as a part of a tensor of a GGUF file.
struct gguf_part {
    linear_layer const* layer;
    gguf_place place;
    std::vector<index_t> rows = {}; ///< the layer's row for each row of the part; none where they are in order

    packed_matrix const* packed() const { return std::get_if<packed_matrix>(&layer->weight); }
};

/// The types that are tried for a packed matrix, those first that products are fastest with.
inline constexpr std::array<std::string_view, 17> gguf_packed_types{
    "Q4_0",  "Q8_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4", "NVFP4", "TQ2_0",
    "TQ1_0", "Q2_0", "Q1_0", "Q4_K", "Q5_K", "Q6_K",   "Q3_K",  "Q2_K"};

DETENT_INLINE std::string gguf_packed_obstacle(std::span<packed_matrix const* const> all, io::ggml_type const*& type) {
    std::string obstacle;
    for (auto const name : gguf_packed_types) {
        auto const& tried = io::ggml_type_named(name);
        std::string here;
        for (auto const* w : all) {
            here = here.empty() ? tried.obstacle(*w) : here;
        }
        if (here.empty()) {
            type = &tried;
            return {};
        }
        if (!here.starts_with("it stores ")) { // codes of other bits
            obstacle += (obstacle.empty() ? " " : "; ") + std::string(name) + ": " + here;
        }
    }
    return "fits no type of llama.cpp" +
           (obstacle.empty() ? ", none has " + std::to_string(all.front()->bits) + " bits" : ":" + obstacle);
}

/// The type of plain numbers that has all of the matrices' numbers.
inline io::ggml_type const& gguf_plain_type(std::span<matrix const* const> all) {
    auto const are = [&]<class T>(T) {
        return std::ranges::all_of(all, [](matrix const* w) {
            return are_numbers_of<T>(std::span(w->data(), static_cast<std::size_t>(w->size())));
        });
    };
    return io::ggml_type_named(are(half{}) ? "F16" : are(bfloat16{}) ? "BF16" : "F32");
}

/// The bytes of numbers in a type of plain ones that has them.
inline std::vector<std::uint8_t> gguf_plain_bytes(io::ggml_type const& type, std::span<float const> numbers) {
    return type.plain == io::dtype::f16    ? bytes_as<half>(numbers)
           : type.plain == io::dtype::bf16 ? bytes_as<bfloat16>(numbers)
                                           : bytes_as<float>(numbers);
}

/// A tensor of a file and the layers in it.
class gguf_weight {
public:
    gguf_weight(std::string tensor, bool is_float) : tensor_(std::move(tensor)), is_float_(is_float) {}

    std::string const& tensor() const { return tensor_; }

    /// Known when it was found.
    io::ggml_type const& type() const { return *type_; }

    void add(gguf_part part) { parts_.push_back(std::move(part)); }

    /// Why the parts cannot be one tensor; empty where they can, and `type` is then known.
    std::string find_type() {
        std::ranges::sort(parts_, {}, [](gguf_part const& p) { return std::pair(p.place.expert, p.place.first); });
        std::vector<matrix const*> floats;
        for (auto const& part : parts_) {
            if (part.packed() == nullptr) {
                floats.push_back(&std::get<matrix>(part.layer->weight));
            }
        }
        if (floats.size() == parts_.size()) {
            type_ = is_float_ ? &io::ggml_type_named("F32") : &gguf_plain_type(floats);
            return {};
        }
        if (!floats.empty() || is_float_) {
            return about(is_float_ ? "is not quantized there"
                                   : "shares the tensor '" + tensor_ + "' with layers that are not quantized as it is");
        }
        return find_packed_type();
    }

    /// Adds the tensor, its bias, and the unit of its scales. The layers must live until the file is saved.
    void add_to(io::gguf_writer& file) const {
        bool const experts = parts_.back().place.expert > 0;
        index_t const count = experts ? parts_.back().place.expert + 1 : 1, in = parts_.front().layer->shape().cols;
        index_t rows = 0;
        bool biased = false;
        for (auto const& part : parts_) {
            rows += part.layer->shape().rows;
            biased = biased || part.layer->bias.size() > 0;
        }
        std::vector<index_t> shape{rows / count, in};
        if (experts) {
            shape.insert(shape.begin(), count);
        }
        file.add(tensor_ + ".weight", *type_, shape, [this](io::gguf_writer::sink const& to) { write(to); });
        if (biased) {
            shape.pop_back();
            file.add(tensor_ + ".bias", io::ggml_type_named("F32"), shape, bias_bytes());
        }
        if (auto const units = this->units(); !units.empty()) {
            file.add(tensor_ + ".scale", io::ggml_type_named("F32"), {std::ssize(units)},
                     gguf_plain_bytes(io::ggml_type_named("F32"), units));
        }
    }

private:
    std::string about(std::string const& problem) const {
        return "layer '" + parts_.front().layer->name + "' " + problem;
    }

    std::string find_packed_type() {
        std::vector<packed_matrix const*> all;
        for (auto const& part : parts_) {
            all.push_back(part.packed());
        }
        std::string const obstacle = gguf_packed_obstacle(all, type_);
        return obstacle.empty() ? other_obstacle() : about(obstacle);
    }

    /// What stands in the way of parts that a type holds.
    std::string other_obstacle() const {
        for (auto const& part : parts_) {
            auto const& w = *part.packed();
            if (!part.rows.empty() && w.tile.rows > 1) {
                return about("has rows in another order there, but some share a scale");
            }
            if (w.scales.format.has_unit() && w.scales.format.unit != 1 && !tensor_.starts_with("blk.")) {
                return about("has scales in a unit of its own, which are not tried outside of blocks");
            }
            auto const& first = *parts_.front().packed();
            bool const shared = part.place.expert == parts_.front().place.expert;
            if (w.scales.format.has_unit() && shared && w.scales.format.unit != first.scales.format.unit) {
                return about("shares the tensor '" + tensor_ + "' with scales of another unit");
            }
        }
        return {};
    }

    /// The units of scales, one for each expert; none where blocks say all of a scale.
    std::vector<float> units() const {
        std::vector<float> units;
        for (auto const& part : parts_) {
            bool const counts = part.packed() != nullptr && type_->name == "NVFP4" && part.place.first == 0;
            if (counts) {
                units.push_back(part.packed()->scales.format.has_unit() ? part.packed()->scales.format.unit : 1.0F);
            }
        }
        return units;
    }

    std::vector<std::uint8_t> bias_bytes() const {
        std::vector<float> all;
        for (auto const& part : parts_) {
            auto const& bias = part.layer->bias;
            for (index_t row = 0; row < part.layer->shape().rows; ++row) {
                index_t const from = part.rows.empty() ? row : part.rows[static_cast<std::size_t>(row)];
                all.push_back(bias.size() > 0 ? bias(from) : 0.0F);
            }
        }
        return gguf_plain_bytes(io::ggml_type_named("F32"), all);
    }

    void write(io::gguf_writer::sink const& to) const {
        for (auto const& part : parts_) {
            if (part.packed() != nullptr) {
                write_packed(part, to);
            } else {
                write_floats(part, to);
            }
        }
    }

    void write_packed(gguf_part const& part, io::gguf_writer::sink const& to) const {
        auto const moved = part.rows.empty() ? packed_matrix() : io::move_rows(*part.packed(), part.rows);
        packed_matrix const& w = part.rows.empty() ? *part.packed() : moved;
        index_t const row_bytes = w.shape().cols / type_->block_codes * type_->block_bytes;
        index_t const step = std::max<index_t>(1, (index_t{1} << 20) / std::max<index_t>(row_bytes, 1));
        std::vector<std::uint8_t> blocks;
        for (index_t row = 0; row < w.shape().rows; row += step) {
            index_t const last = std::min(row + step, w.shape().rows);
            blocks.resize(static_cast<std::size_t>((last - row) * row_bytes));
            type_->write(w, row, last, blocks.data());
            to(blocks);
        }
    }

    void write_floats(gguf_part const& part, io::gguf_writer::sink const& to) const {
        matrix const& w = std::get<matrix>(part.layer->weight);
        auto const in = static_cast<std::size_t>(w.cols());
        for (index_t row = 0; row < w.rows(); ++row) {
            index_t const from = part.rows.empty() ? row : part.rows[static_cast<std::size_t>(row)];
            to(gguf_plain_bytes(*type_, std::span(w.data() + from * w.cols(), in)));
        }
    }

    std::string tensor_;
    bool is_float_; // is to be F32
    io::ggml_type const* type_ = nullptr;
    std::vector<gguf_part> parts_;
};

/// The tensors of a decoder as a file has them. They refer to the decoder.
class gguf_model {
public:
    gguf_model(decoder const& model, gguf_architecture const& a)
        : model_(model), places_(gguf_places(model.configuration, model.prefix, a)) {
        add(model.embeddings);
        for (block const& b : model.blocks) {
            for (layer_place const place : b.places()) {
                add(b.linear(place), &b, place.role);
            }
        }
        if (model.lm_head) {
            add(*model.lm_head);
        }
    }

    /// Why the layers cannot be saved; empty where they can.
    std::string obstacle() {
        for (block const& b : model_.blocks) {
            bool rounded = b.head_input || b.heads.probability_bits > 0;
            for (layer_place const place : b.places()) {
                rounded = rounded || b.linear(place).input;
            }
            if (rounded) {
                return "the block of layer '" + b.query.name +
                       "' rounds what layers or attention read, llama.cpp as "
                       "it likes";
            }
        }
        std::string obstacle;
        for (auto& weight : weights_) {
            obstacle = obstacle.empty() ? weight.find_type() : obstacle;
        }
        return obstacle.empty() ? unknown_ : obstacle;
    }

    /// The type of most weights; there is no obstacle.
    std::string_view most_common_type() const {
        std::map<std::string_view, std::size_t> counts;
        for (auto const& weight : weights_) {
            ++counts[weight.type().name];
        }
        return std::ranges::max_element(counts, {}, [](auto const& c) { return c.second; })->first;
    }

    /// Adds all tensors, block after block; there is no obstacle.
    void add_to(io::gguf_writer& file, gguf_contents const& contents) const {
        add_list(file, "rope_freqs", contents.divisors);
        add_list(file, "rope_factors_long", contents.long_divisors);
        add_list(file, "rope_factors_short", contents.short_divisors);
        auto weight = weights_.begin();
        auto const add_weights = [&](std::string const& start) {
            for (; weight != weights_.end() && weight->tensor().starts_with(start); ++weight) {
                weight->add_to(file);
            }
        };
        add_weights("token_embd");
        add_norm(file, model_.embedding_norm);
        add_positions(file);
        for (std::size_t i = 0; i < model_.blocks.size(); ++i) {
            block const& b = model_.blocks[i];
            for (auto const* norm : {&b.attention_norms.input, &b.attention_norms.output, &b.mlp_norms.input,
                                     &b.mlp_norms.output, &b.query_norm, &b.key_norm}) {
                add_norm(file, *norm);
            }
            std::string const start = "blk." + std::to_string(i) + ".";
            add_list(file, start + "attn_sinks", {b.attention.sinks.begin(), b.attention.sinks.end()});
            add_weights(start);
        }
        add_norm(file, model_.final_norm);
        add_weights("output");
    }

private:
    void add(linear_layer const& layer, block const* b = nullptr, linear_role role = linear_role::head) {
        auto const found = places_.find(layer.name);
        if (found == places_.end()) {
            unknown_ = "layer '" + layer.name + "' has no place in llama.cpp's files";
            return;
        }
        gguf_part part{&layer, found->second};
        if (part.place.turned && b->rotary) {
            index_t const heads = layer.shape().rows / b->heads.head_dim;
            part.rows = rotary_rows(heads, b->heads.head_dim, b->rotary->dimensions);
        }
        std::string const& tensor = part.place.tensor;
        auto at = std::ranges::find(weights_, tensor, &gguf_weight::tensor);
        if (at == weights_.end()) {
            at = weights_.insert(at, gguf_weight(tensor, !is_quantized(role)));
        }
        at->add(std::move(part));
    }

    void add_positions(io::gguf_writer& file) const {
        auto const& table = model_.position_embeddings;
        if (table.size() == 0) {
            return;
        }
        matrix const* const one[] = {&table};
        auto const& type = gguf_plain_type(one);
        std::string const name = model_.prefix + model_.configuration.names.positions;
        file.add(places_.at(name).tensor + ".weight", type, {table.rows(), table.cols()},
                 gguf_plain_bytes(type, {table.data(), static_cast<std::size_t>(table.size())}));
    }

    void add_norm(io::gguf_writer& file, std::optional<norm_layer> const& norm) const {
        if (!norm || norm->weight.size() == 0) {
            return;
        }
        std::string const tensor = places_.at(norm->name).tensor;
        add_vector(file, tensor + ".weight", norm->weight);
        if (norm->bias.size() > 0) {
            add_vector(file, tensor + ".bias", norm->bias);
        }
    }

    static void add_vector(io::gguf_writer& file, std::string name, float_vector const& v) {
        auto const& type = io::ggml_type_named("F32");
        file.add(std::move(name), type, {v.size()},
                 gguf_plain_bytes(type, {v.data(), static_cast<std::size_t>(v.size())}));
    }

    static void add_list(io::gguf_writer& file, std::string const& name, std::vector<double> const& numbers) {
        if (!numbers.empty()) {
            float_vector v(std::ssize(numbers));
            std::ranges::transform(numbers, v.data(), [](double x) { return static_cast<float>(x); });
            add_vector(file, name + ".weight", v);
        }
    }

    decoder const& model_;
    std::map<std::string, gguf_place> places_;
    std::vector<gguf_weight> weights_;
    std::string unknown_; // what has no place
};

/// What `general.file_type` says where most tensors are of a type.
inline std::uint32_t gguf_file_type(std::string_view type) {
    constexpr std::pair<std::string_view, std::uint32_t> numbers[] = {
        {"F32", 0},    {"F16", 1},    {"Q4_0", 2},   {"Q4_1", 3},   {"Q8_0", 7},  {"Q5_0", 8},    {"Q5_1", 9},
        {"Q2_K", 10},  {"Q3_K", 11},  {"Q4_K", 14},  {"Q5_K", 16},  {"Q6_K", 18}, {"IQ4_NL", 25}, {"BF16", 32},
        {"TQ1_0", 36}, {"TQ2_0", 37}, {"MXFP4", 38}, {"NVFP4", 39}, {"Q1_0", 40}, {"Q2_0", 41}};
    return std::ranges::find(numbers, type, [](auto const& n) { return n.first; })->second;
}

DETENT_INLINE std::string gguf_obstacle(decoder const& model) {
    if (auto obstacle = gguf_obstacle(model.configuration); !obstacle.empty()) {
        return obstacle;
    }
    return gguf_model(model, *find_gguf_architecture(model.configuration.type)).obstacle();
}

DETENT_INLINE std::vector<std::string> save_gguf(decoder const& model, std::filesystem::path const& source,
                                                 std::filesystem::path const& file, std::string const& description) {
    auto const& c = model.configuration;
    if (auto const obstacle = gguf_obstacle(c); !obstacle.empty()) {
        throw error(file.string(), obstacle);
    }
    gguf_architecture const& a = *find_gguf_architecture(c.type);
    gguf_model tensors(model, a);
    if (auto const obstacle = tensors.obstacle(); !obstacle.empty()) {
        throw error(file.string(), obstacle);
    }
    std::vector<std::string> notes;
    io::gguf_writer writer;
    auto& metadata = writer.metadata();
    metadata.add("general.architecture", std::string(a.name));
    metadata.add("general.type", std::string("model"));
    metadata.add("general.name", std::filesystem::absolute(source).lexically_normal().filename().string());
    metadata.add("general.description", description);
    metadata.add("general.quantized_by", std::string("detent"));
    add_gguf_settings(metadata, c, a);
    metadata.add("general.file_type", gguf_file_type(tensors.most_common_type()));
    metadata.add("general.quantization_version", std::uint32_t{2});
    add_gguf_tokenizer(metadata, source, c);
    tensors.add_to(writer, contents_for(c, a));
    writer.save(file);
    if (gguf_positions(c, a) < c.max_positions) {
        notes.push_back("llama.cpp's architecture '" + std::string(a.name) +
                        "' has no windows: the file says a context of " + std::to_string(gguf_positions(c, a)) +
                        " tokens, in which none is narrower");
    }
    return notes;
}

} // namespace detent::inline DETENT_ABI
