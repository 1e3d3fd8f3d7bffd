// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_awq.hpp"
#include "detent/io/packed_parts.hpp"
#include "detent/pack/awq.hpp"
#include "detent/pack/repack.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::string awq_obstacle(packed_matrix const& w) {
    auto const [out, in] = w.shape();
    if (w.bits != 4) {
        return "it stores 4 bits, not " + std::to_string(w.bits);
    }
    if (auto const obstacle = integer_obstacle(w); !obstacle.empty()) {
        return obstacle;
    }
    if (!w.weak.empty()) {
        return "it has no weak columns";
    }
    if (w.scales.format != float_format::f16) {
        return "its scales are f16";
    }
    if (!w.map.empty()) {
        return "its inputs are as they come";
    }
    if (in % w.tile.cols != 0) {
        return "its groups are all of the same width";
    }
    if (out % 8 != 0) {
        return "a weight of shape (" + std::to_string(out) + ", " + std::to_string(in) + ") does not fill its words";
    }
    return {};
}

DETENT_INLINE void add_awq(safetensors_writer& file, std::string const& name, packed_matrix const& w) {
    auto const [out, in] = w.shape();
    index_t const groups = w.scales.tiles.cols;
    std::vector<code> zeros;   // (out, group)
    std::vector<float> scales; // (group, out)
    for (index_t row = 0; row < out; ++row) {
        for (index_t group = 0; group < groups; ++group) {
            zeros.push_back(zero_code(w, row, group));
        }
    }
    for (index_t group = 0; group < groups; ++group) {
        for (index_t row = 0; row < out; ++row) {
            scales.push_back(w.scales.at(row, group).scale);
        }
    }
    std::vector<std::uint8_t> words(static_cast<std::size_t>(awq_packing::bytes(w.shape())));
    repack<linear_packing<4>, awq_packing>(w.codes.data(), w.shape(), words.data());
    std::vector<std::uint8_t> zero_words(static_cast<std::size_t>(awq_packing::bytes({out, groups})));
    awq_packing::pack(zeros.data(), {out, groups}, zero_words.data());
    file.add(name + ".qweight", dtype::i32, {in, out / 8}, std::move(words));
    file.add(name + ".qzeros", dtype::i32, {groups, out / 8}, std::move(zero_words));
    file.add(name + ".scales", dtype::f16, {groups, out}, scale_bytes(scales, float_format::f16));
}

DETENT_INLINE packed_matrix read_awq(tensor_reader const& tensors, std::string const& name, extents shape) {
    auto const [out, in] = shape;
    if (out % 8 != 0) {
        throw tensors.wrong(name + ".qweight", "holds whole words of 8 outputs, but there are " + std::to_string(out));
    }
    auto const& words = tensors.checked_integers<std::uint32_t>(name + ".qweight", {in, out / 8});
    auto const& scales = tensors.at(name + ".scales");
    index_t const groups = scales.shape.empty() ? 0 : scales.shape[0];
    if (groups < 1 || in % groups != 0) {
        throw tensors.wrong(name + ".scales", "has " + std::to_string(groups) + " groups of " + std::to_string(in) +
                                                  " inputs, which are not all of the same width");
    }
    auto const scale_values = tensors.floats(name + ".scales", {groups, out});
    auto const& zero_words = tensors.checked_integers<std::uint32_t>(name + ".qzeros", {groups, out / 8});
    packed_matrix w = integer_matrix(4, shape);
    w.tile = {1, in / groups};
    w.scales = scale_store(shape, w.tile, float_format_of(scales.type), true);
    std::vector<code> zeros(static_cast<std::size_t>(out * groups)); // (out, group)
    awq_packing::unpack(zero_words.bytes.data(), {out, groups}, zeros.data());
    for (index_t row = 0; row < out; ++row) {
        for (index_t group = 0; group < groups; ++group) {
            w.scales.set(row, group,
                         {scale_values[static_cast<std::size_t>(group * out + row)],
                          static_cast<float>(zeros[static_cast<std::size_t>(row * groups + group)])});
        }
    }
    w.codes = buffer(linear_packing<4>::bytes(shape));
    repack<awq_packing, linear_packing<4>>(words.bytes.data(), shape, w.codes.data());
    return w;
}

/// Reads AWQ's layers.
class awq_reader final : public layout_reader {
public:
    awq_reader(checkpoint const& file, quantization_settings const& settings) : layout_reader(file) {
        for (auto const* field : {"bits", "w_bit"}) {
            if (index_t const bits = settings.integer(field, 4); bits != 4) {
                throw settings.wrong(field, "is " + std::to_string(bits) + "; only 4 is read");
            }
        }
        auto version = settings.text("version", "gemm");
        std::ranges::transform(version, version.begin(),
                               [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
        if (version != "gemm") {
            throw settings.wrong("version", "is '" + printable(version) + "'; only 'gemm' is read");
        }
        static_cast<void>(settings.truth("zero_point", true));
    }

    bool contains(std::string const& name) const override { return tensors_.contains(name + ".qweight"); }

    packed_matrix read(std::string const& name, extents shape) const override {
        return read_awq(tensors_, name, shape);
    }
};

DETENT_INLINE nlohmann::json awq_json(std::span<layer_to_save const> all) {
    nlohmann::json settings{{"quant_method", "awq"}, {"bits", 4}, {"version", "gemm"}, {"zero_point", true}};
    index_t width = -1;
    auto floats = nlohmann::json::array();
    for (auto const& layer : all) {
        if (layer.weight == nullptr) {
            floats.push_back(layer.name);
        } else if (layer.weight->tile.cols != layer.weight->shape().cols) {
            width = layer.weight->tile.cols;
        }
    }
    settings["group_size"] = width;
    settings["modules_to_not_convert"] = floats;
    return settings;
}

DETENT_INLINE checkpoint_layout const& awq_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::awq,
        .name = "awq",
        .title = "AWQ's",
        .method = "awq",
        .obstacle = awq_obstacle,
        .input_obstacle = [](packed_matrix const*, stored_input const&) -> std::string {
            return "its inputs are not quantized";
        },
        .pair_obstacle = [](packed_matrix const& first, packed_matrix const& other) -> std::string {
            bool const whole_rows = other.tile.cols == other.shape().cols && first.tile.cols == first.shape().cols;
            return other.tile.cols != first.tile.cols && !whole_rows ? "all of its layers have the same group width"
                                                                     : "";
        },
        .settings = awq_json,
        .add = [](safetensors_writer& file, layer_to_save const& layer,
                  nlohmann::json const&) { add_awq(file, layer.name, *layer.weight); },
        .open = [](checkpoint const& file, quantization_settings const& settings) -> std::unique_ptr<layout_reader> {
            return std::make_unique<awq_reader>(file, settings);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io
