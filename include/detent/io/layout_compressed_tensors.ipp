// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/compressed_words.hpp"
#include "detent/io/float_codes.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_compressed_tensors.hpp"
#include "detent/io/packed_parts.hpp"

namespace detent::inline DETENT_ABI::io {

/// The version of compressed-tensors whose files are written.
inline constexpr char const* compressed_version = "0.17.1";

DETENT_INLINE std::string compressed_format(packed_matrix const& w, bool rounds_input) {
    auto const kind = w.scales.format.kind;
    if (is_fp4(w)) {
        return w.tile == extents{1, 16} && kind == scale_kind::ue4m3  ? "nvfp4-pack-quantized"
               : w.tile == extents{1, 32} && kind == scale_kind::e8m0 ? "mxfp4-pack-quantized"
                                                                      : "";
    }
    if (is_fp8(w)) {
        return bits_of(w.scales.format) > 8                           ? "float-quantized"
               : w.tile == extents{1, 32} && kind == scale_kind::e8m0 ? "mxfp8-quantized"
                                                                      : "";
    }
    return integer_offset(w.table) < 0 ? "" : rounds_input && w.bits == 8 ? "int-quantized" : "pack-quantized";
}

DETENT_INLINE std::string compressed_obstacle(packed_matrix const& w) {
    auto const [out, in] = w.shape();
    bool const integers = integer_offset(w.table) >= 0;
    if (!integers && !is_fp4(w) && !is_fp8(w)) {
        return "its grids are integers, E4M3 (ocp-e4m3) and E2M1";
    }
    if (compressed_format(w, false).empty()) {
        return is_fp4(w) ? "its E2M1 weights have E4M3 scales of 16 inputs or E8M0 scales of 32"
                         : "its E4M3 weights have scales of 16 or 32 bits, or E8M0 scales of 32 inputs";
    }
    if (auto const obstacle = integers ? integer_obstacle(w) : ""; !obstacle.empty()) {
        return obstacle;
    }
    if (!w.weak.empty()) {
        return "it has no weak columns";
    }
    if (integers && bits_of(w.scales.format) == 8) {
        return "its scales are f16, bf16 or f32";
    }
    if (!w.map.empty() && (!integers || w.map.order() == nullptr)) {
        return integers ? "its inputs are only put in another order" : "its inputs are as they come";
    }
    if (w.tile.rows == 1 && in % w.tile.cols != 0) {
        return "its groups are all of the same width";
    }
    return {};
}

DETENT_INLINE std::string compressed_input_obstacle(packed_matrix const* w, stored_input const& input) {
    if (w == nullptr) {
        return "inputs are quantized only where weights are";
    }
    if (!input.shifts.empty()) {
        return "its inputs are not shifted";
    }
    bool const fp4 = input.grid == "e2m1";
    if (!fp4 && input.grid != "ocp-e4m3" && !(input.grid.starts_with("int") && input.grid.size() <= 7)) {
        return "its inputs are integers, E4M3 (ocp-e4m3) or E2M1";
    }
    if (!input.scales.empty()) {
        return input.scales.size() > 1 || fp4 ? "inputs with one range for all tokens share it" : "";
    }
    bool const mx = fp4 && input.width == 32 && input.kind == scale_kind::e8m0;
    bool const nv = fp4 && input.width == 16 && input.kind == scale_kind::ue4m3;
    if (nv && !input.unit) {
        return "the E4M3 scales of its inputs have one unit for all tokens";
    }
    if (!mx && !nv && (input.width != 0 || input.kind != scale_kind::f32 || fp4)) {
        return "its inputs have a scale for each token, or are MXFP4 or NVFP4";
    }
    return input.width > 0 && !w->map.empty() ? "groups of inputs are as they come" : "";
}

DETENT_INLINE void add_scales(safetensors_writer& file, std::string const& name, packed_matrix const& w) {
    auto const [rows, cols] = w.scales.tiles;
    auto bytes = scale_bytes(w.scales.scales, w.scales.format);
    bool const powers = w.scales.format.kind == scale_kind::e8m0;
    auto shape = w.tile.rows > 1 && rows * cols == 1 ? std::vector<index_t>{1} : std::vector<index_t>{rows, cols};
    file.add(name + ".weight_scale", powers ? dtype::u8 : dtype_of(w.scales.format), std::move(shape),
             std::move(bytes));
}

/// The number whose reciprocal is `unit`, or whose reciprocal is next to it where no float has it.
DETENT_INLINE float divisor_of(float unit) {
    float const near = 1 / unit;
    for (float const candidate : {near, std::nextafter(near, 0.0F), std::nextafter(near, 2 * near)}) {
        if (1 / candidate == unit) {
            return candidate;
        }
    }
    return near;
}

/// Adds the codes and zero points of integers.
DETENT_INLINE void add_integers(safetensors_writer& file, std::string const& name, packed_matrix const& w,
                                bool packed) {
    auto const [out, in] = w.shape();
    index_t const groups = w.scales.tiles.cols;
    auto const codes = natural_codes(w);
    bool const symmetric = is_symmetric(w);
    if (packed) {
        index_t const in_word = 32 / w.bits;
        file.add(name + ".weight_packed", dtype::i32, {out, ceil_div(in, in_word)},
                 words_of_codes(w.bits, {out, in}, codes));
        file.add(name + ".weight_shape", dtype::i64, {2}, bytes_of(std::vector<std::int64_t>{out, in}));
        if (!symmetric) { // packed along the rows
            index_t const words = ceil_div(out, in_word);
            auto const turned = words_of_codes(w.bits, {groups, out}, transposed_codes({out, groups}, zero_codes(w)));
            file.add(name + ".weight_zero_point", dtype::i32, {words, groups},
                     transposed_words({groups, words}, turned));
        }
    } else {
        file.add(name + ".weight", dtype::i8, {out, in}, signed_bytes(w.bits, codes));
        if (!symmetric) {
            file.add(name + ".weight_zero_point", dtype::i8, {out, groups}, signed_bytes(w.bits, zero_codes(w)));
        }
    }
    if (!w.map.empty()) {
        file.add(name + ".weight_g_idx", dtype::i32, {in}, bytes_of(groups_of_inputs(w)));
    }
}

DETENT_INLINE void add_compressed(safetensors_writer& file, layer_to_save const& layer) {
    auto const& [name, weight, input, in_block] = layer;
    packed_matrix const& w = *weight;
    auto const [out, in] = w.shape();
    std::string const format = compressed_format(w, input != nullptr);
    if (is_fp4(w)) {
        file.add(name + ".weight_packed", dtype::u8, {out, in / 2}, w.codes.bytes());
    } else if (is_fp8(w)) {
        file.add(name + ".weight", dtype::f8_e4m3, {out, in}, w.codes.bytes());
    } else {
        add_integers(file, name, w, format == "pack-quantized");
    }
    if (w.scales.format.has_unit()) {
        file.add(name + ".weight_global_scale", dtype::f32, {1},
                 bytes_of(std::vector{divisor_of(w.scales.format.unit)}));
    }
    add_scales(file, name, w);
    if (input != nullptr && input->unit) {
        file.add(name + ".input_global_scale", dtype::f32, {1}, bytes_of(std::vector{divisor_of(*input->unit)}));
    }
    if (input != nullptr && !input->scales.empty()) {
        file.add(name + ".input_scale", dtype::f32, {1}, bytes_of(input->scales));
        if (!input->zeros.empty()) {
            int const bits = input->grid[3] - '0';
            file.add(name + ".input_zero_point", dtype::i8, {1},
                     signed_bytes(bits, {static_cast<code>(input->zeros[0])}));
        }
    }
}

/// The codes and zero points of integers, packed or each in a byte.
DETENT_INLINE packed_matrix read_integers(tensor_reader const& tensors, std::string const& name, extents shape,
                                          compressed_numbers const& n, index_t groups, bool packed) {
    auto const [out, in] = shape;
    packed_matrix w = integer_matrix(n.bits, shape, n.symmetric ? -(1 << (n.bits - 1)) : 0);
    w.scales.zeros.resize(n.symmetric ? 0 : static_cast<std::size_t>(out * groups));
    std::string const zero_name = name + ".weight_zero_point";
    if (!packed) {
        auto const codes_of = [&](std::string const& tensor, extents size) {
            auto const numbers = tensors.integers<std::int8_t>(tensor, {size.rows, size.cols});
            std::vector<code> codes;
            for (int const q : numbers) {
                int const c = q + (1 << (n.bits - 1));
                if (c < 0 || c >= 1 << n.bits) {
                    throw tensors.wrong(tensor, "holds an integer of more than " + std::to_string(n.bits) + " bits");
                }
                codes.push_back(static_cast<code>(c));
            }
            return codes;
        };
        w.codes = pack_rows(n.bits, shape, codes_of(name + ".weight", shape).data());
        if (!n.symmetric) {
            std::ranges::copy(codes_of(zero_name, {out, groups}), w.scales.zeros.begin());
        }
        return w;
    }
    auto const extent = tensors.integers<std::int64_t>(name + ".weight_shape", {2});
    if (extent[0] != out || extent[1] != in) {
        throw tensors.wrong(name + ".weight_shape", "is not (" + std::to_string(out) + ", " + std::to_string(in) + ")");
    }
    auto const& stored = tensors.at(name + ".weight_packed").shape;
    index_t const words = stored.size() == 2 ? stored[1] : 0;
    index_t const in_word = 32 / n.bits, gaps = ceil_div(in, in_word), dense = ceil_div(in * n.bits, 32);
    if (gaps == dense && 32 % n.bits != 0 && in > in_word) {
        throw tensors.wrong(name + ".weight_packed", "is so small that it may be packed in two ways");
    }
    bool const is_dense = words != gaps && words == dense;
    auto const& t = tensors.checked_integers<std::uint32_t>(name + ".weight_packed", {out, is_dense ? dense : gaps});
    w.codes = pack_rows(n.bits, shape, codes_of_words(n.bits, shape, t.bytes, is_dense).data());
    if (!n.symmetric) {
        index_t const rows = is_dense ? ceil_div(out * n.bits, 32) : ceil_div(out, in_word);
        auto const& z = tensors.checked_integers<std::uint32_t>(zero_name, {rows, groups});
        auto const turned = transposed_words({rows, groups}, z.bytes);
        auto const codes = codes_of_words(n.bits, {groups, out}, turned, is_dense);
        std::ranges::copy(transposed_codes({groups, out}, codes), w.scales.zeros.begin());
    }
    return w;
}

/// The weights that share a scale.
DETENT_INLINE extents tile_of(compressed_numbers const& n, extents shape) {
    switch (n.strategy) {
    case compressed_strategy::tensor:
    case compressed_strategy::token:
        break;
    case compressed_strategy::channel:
        return {1, shape.cols};
    case compressed_strategy::group:
    case compressed_strategy::tensor_group:
        return {1, std::min(n.group, shape.cols)};
    case compressed_strategy::block:
        return {std::min(n.block.rows, shape.rows), std::min(n.block.cols, shape.cols)};
    }
    return shape;
}

DETENT_INLINE packed_matrix read_compressed(tensor_reader const& tensors, std::string const& name, extents shape,
                                            compressed_scheme const& scheme) {
    auto const& n = scheme.weights;
    bool const packed = scheme.format.find("pack-quantized") != std::string::npos;
    extents const tile = tile_of(n, shape);
    packed_matrix w;
    if (!n.is_float) {
        w = read_integers(tensors, name, shape, n, ceil_div(shape.cols, tile.cols), packed);
        if (!n.symmetric && tile.rows > 1) {
            throw tensors.wrong(name + ".weight_scale", "is of several rows, which have a zero point");
        }
    } else {
        w = n.bits == 4 ? read_fp4(tensors, name + ".weight_packed", shape)
                        : read_fp8(tensors, name + ".weight", shape);
    }
    w.tile = tile;
    auto const zeros = std::move(w.scales.zeros);
    float unit = 1;
    if (std::string const global = name + ".weight_global_scale"; scheme.format == "nvfp4-pack-quantized") {
        unit = tensors.unit(global, 1 / tensors.number(global)); // stored as what divides
    }
    read_scales(tensors, name + ".weight_scale", w, unit);
    w.scales.zeros = zeros;
    std::string const indices = name + ".weight_g_idx";
    if (tensors.contains(indices)) {
        auto const group_of = tensors.integers<std::int32_t>(indices, {shape.cols});
        if (std::ranges::find(group_of, -1) == group_of.end()) { // else they were never set
            auto const order = order_of_groups(group_of);
            if (group_width(group_of, order, w.scales.tiles.cols) != w.tile.cols) {
                throw tensors.wrong(indices, "its groups are not of " + std::to_string(w.tile.cols) + " inputs each");
            }
            store_in_order(w, order);
        }
    }
    return w;
}

/// Reads the layers of compressed-tensors.
class compressed_reader final : public layout_reader {
public:
    compressed_reader(checkpoint const& file, quantization_settings const& settings)
        : layout_reader(file), schemes_(settings) {
        if (schemes_.quantizes_keys_and_values()) {
            warnings_.push_back("the settings ask for a quantized KV cache (kv_cache_scheme), which is not followed");
        }
    }

    bool contains(std::string const& name) const override {
        std::string const weight = name + ".weight";
        return tensors_.contains(name + ".weight_packed") ||
               (tensors_.contains(weight) && bit_size(tensors_.at(weight).type) == 8);
    }

    packed_matrix read(std::string const& name, extents shape) const override {
        return read_compressed(tensors_, name, shape, schemes_.of(name));
    }

    std::optional<stored_input> input(std::string const& name, index_t) const override {
        if (!contains(name) || !schemes_.of(name).inputs) {
            return {};
        }
        auto const& n = *schemes_.of(name).inputs;
        auto const wrong = [&](std::string const& problem) { return tensors_.wrong(name + ".input", problem); };
        stored_input stored{.grid = n.is_float ? (n.bits == 4 ? "e2m1" : "ocp-e4m3")
                                               : "int" + std::to_string(n.bits) + (n.symmetric ? "sym" : "")};
        if (n.local_scales) {
            std::string const global = name + ".input_global_scale";
            stored.width = n.group;
            stored.kind = scale_kind::ue4m3;
            stored.unit = tensors_.unit(global, 1 / tensors_.number(global));
        } else if (n.dynamic) {
            if (n.strategy != compressed_strategy::token && n.strategy != compressed_strategy::group) {
                throw wrong("is rounded with a range that all tokens of a text share, which is not done");
            }
            stored.width = n.strategy == compressed_strategy::group ? n.group : 0;
            stored.kind = n.is_float && n.group == 32 ? scale_kind::e8m0 : scale_kind::f32;
        } else {
            if (n.strategy != compressed_strategy::tensor) {
                throw wrong("is rounded with several ranges for all tokens, which is not done");
            }
            stored.scales = {tensors_.number(name + ".input_scale")};
            if (!(stored.scales[0] > 0)) {
                throw tensors_.wrong(name + ".input_scale", "holds a scale that is not positive");
            }
            if (!n.symmetric) {
                auto const zero = tensors_.integers<std::int8_t>(name + ".input_zero_point", {1}).front();
                stored.zeros = {static_cast<float>(zero + (1 << (n.bits - 1)))};
            }
        }
        return stored;
    }

    bool is_extra(std::string const& tensor) const override {
        return is_cache_scale(tensor) || tensor.ends_with(".k_zero_point") || tensor.ends_with(".v_zero_point");
    }

private:
    compressed_schemes schemes_;
};

/// What the settings say of the numbers of weights.
DETENT_INLINE nlohmann::json json_of_weights(packed_matrix const& w) {
    bool const floats = is_fp4(w) || is_fp8(w), nv = w.scales.format.has_unit();
    nlohmann::json json{{"num_bits", w.bits},
                        {"type", floats ? "float" : "int"},
                        {"symmetric", floats || is_symmetric(w)},
                        {"dynamic", false}};
    if (w.tile.rows > 1 && w.tile != w.shape()) {
        json["strategy"] = "block";
        json["block_structure"] = {w.tile.rows, w.tile.cols};
    } else if (w.tile.rows > 1) {
        json["strategy"] = "tensor";
    } else if (w.tile.cols == w.shape().cols && !is_fp4(w) && bits_of(w.scales.format) > 8) {
        json["strategy"] = "channel";
    } else {
        json["strategy"] = nv ? "tensor_group" : "group";
        json["group_size"] = w.tile.cols;
    }
    if (!w.map.empty()) {
        json["actorder"] = "group";
    }
    if (bits_of(w.scales.format) == 8) {
        json["scale_dtype"] = nv ? "torch.float8_e4m3fn" : "torch.uint8";
    }
    return json;
}

/// What the settings say of how inputs are rounded.
DETENT_INLINE nlohmann::json json_of_input(stored_input const& input) {
    bool const integers = input.grid.starts_with("int");
    nlohmann::json json{{"num_bits", integers               ? input.grid[3] - '0'
                                     : input.grid == "e2m1" ? 4
                                                            : 8},
                        {"type", integers ? "int" : "float"},
                        {"symmetric", !integers || input.grid.ends_with("sym")}};
    if (!input.scales.empty()) {
        json["strategy"] = "tensor";
        json["dynamic"] = false;
    } else if (input.width == 0) {
        json["strategy"] = "token";
        json["dynamic"] = true;
    } else if (input.unit) {
        json.update({{"strategy", "tensor_group"}, {"group_size", input.width}, {"dynamic", "local"}});
        json["scale_dtype"] = "torch.float8_e4m3fn";
    } else {
        json.update({{"strategy", "group"}, {"group_size", input.width}, {"dynamic", true}});
        json["scale_dtype"] = "torch.uint8";
    }
    return json;
}

DETENT_INLINE nlohmann::json compressed_json(std::span<layer_to_save const> all) {
    std::vector<std::pair<nlohmann::json, std::vector<std::string>>> schemes; // and the layers that have each
    auto ignored = nlohmann::json::array();
    for (auto const& [name, w, input, in_block] : all) {
        if (w == nullptr) {
            ignored.push_back(name);
            continue;
        }
        nlohmann::json scheme{{"format", compressed_format(*w, input != nullptr)},
                              {"weights", json_of_weights(*w)},
                              {"input_activations", input == nullptr ? nlohmann::json() : json_of_input(*input)},
                              {"output_activations", nullptr}};
        auto found = std::ranges::find(schemes, scheme, [](auto const& s) { return s.first; });
        if (found == schemes.end()) {
            found = schemes.emplace(found, scheme, std::vector<std::string>());
        }
        found->second.push_back(name);
    }
    auto groups = nlohmann::json::object();
    std::string format;
    for (std::size_t i = 0; i < schemes.size(); ++i) {
        auto& [scheme, names] = schemes[i];
        if (schemes.size() == 1) {
            scheme["targets"] = {"Linear"};
        } else {
            scheme["targets"] = names;
        }
        auto const mine = scheme["format"].get<std::string>();
        format = format.empty() || format == mine ? mine : "mixed-precision";
        groups["group_" + std::to_string(i)] = scheme;
    }
    return {{"quant_method", "compressed-tensors"},
            {"version", compressed_version},
            {"format", format},
            {"quantization_status", "compressed"},
            {"config_groups", groups},
            {"ignore", ignored},
            {"kv_cache_scheme", nullptr}};
}

DETENT_INLINE checkpoint_layout const& compressed_tensors_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::compressed_tensors,
        .name = "compressed-tensors",
        .title = "compressed-tensors'",
        .method = "compressed-tensors",
        .obstacle = compressed_obstacle,
        .input_obstacle = compressed_input_obstacle,
        .settings = compressed_json,
        .add = [](safetensors_writer& file, layer_to_save const& layer,
                  nlohmann::json const&) { add_compressed(file, layer); },
        .open = [](checkpoint const& file, quantization_settings const& settings) -> std::unique_ptr<layout_reader> {
            return std::make_unique<compressed_reader>(file, settings);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io
