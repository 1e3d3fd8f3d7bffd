// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/layout_gptq.hpp"
#include "detent/io/layout_owq.hpp"
#include "detent/io/packed_parts.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::string owq_obstacle(packed_matrix const& w) {
    auto const [out, in] = w.shape();
    if (w.bits != 3 && w.bits != 4) {
        return "it stores 3 or 4 bits, not " + std::to_string(w.bits);
    }
    if (auto const obstacle = integer_obstacle(w); !obstacle.empty()) {
        return obstacle;
    }
    if (w.tile.cols != in) {
        return "its scales are of whole rows";
    }
    if (!w.map.empty()) {
        return "its inputs are as they come";
    }
    if (bits_of(w.scales.format) == 8) {
        return "its scales are f16, bf16 or f32";
    }
    if (in % 32 != 0 || out % 2 != 0) {
        return "a weight of shape (" + std::to_string(out) + ", " + std::to_string(in) + ") does not fill its words";
    }
    return {};
}

DETENT_INLINE void add_owq(safetensors_writer& file, std::string const& name, packed_matrix const& w) {
    auto const [out, in] = w.shape();
    std::vector<code> zeros; // stored in 4 bits whatever the codes have
    for (index_t row = 0; row < out; ++row) {
        zeros.push_back(zero_code(w, row, 0));
    }
    file.add(name + ".qweight", dtype::i32, {in * w.bits / 32, out}, code_words(w));
    file.add(name + ".scales", dtype_of(w.scales.format), {out, 1}, scale_bytes(w.scales.scales, w.scales.format));
    file.add(name + ".zeros", dtype::u8, {out / 2, 1}, linear_bytes(4, {1, out}, zeros));
    file.add(name + ".oweight", dtype_of(w.weak.format()), {w.weak.count(), out}, w.weak.values().bytes());
    file.add(name + ".outlieridx", dtype::i32, {w.weak.count()}, bytes_of(w.weak.columns()));
}

/// The shape of a tensor of `n` elements that may be a column.
DETENT_INLINE std::vector<index_t> column(tensor_view const& t, index_t n) {
    return t.shape.size() == 1 ? std::vector{n} : std::vector{n, index_t{1}};
}

DETENT_INLINE packed_matrix read_owq(tensor_reader const& tensors, std::string const& name, extents shape) {
    auto const [out, in] = shape;
    int const bits = bits_of_words(tensors, name, shape);
    if ((bits != 3 && bits != 4) || out % 2 != 0) {
        throw does_not_hold(tensors, name, shape);
    }
    auto const& words = tensors.checked_integers<std::uint32_t>(name + ".qweight", {in * bits / 32, out});
    packed_matrix w = integer_matrix(bits, shape);
    w.tile = {1, in};
    auto const& scales = tensors.at(name + ".scales");
    auto const scale_values = tensors.floats(name + ".scales", column(scales, out));
    auto const zeros = linear_codes(
        4, {1, out}, tensors.integers<std::uint8_t>(name + ".zeros", column(tensors.at(name + ".zeros"), out / 2)));
    w.scales = scale_store(shape, w.tile, float_format_of(scales.type), true);
    for (index_t row = 0; row < out; ++row) {
        int const zero = zeros[static_cast<std::size_t>(row)];
        if (zero >= 1 << bits) {
            throw tensors.wrong(name + ".zeros", "holds a zero point that is no code");
        }
        w.scales.set(row, 0, {scale_values[static_cast<std::size_t>(row)], static_cast<float>(zero)});
    }
    w.codes = linear_of_words(bits, shape, words.bytes);
    read_weak(tensors, w, name + ".outlieridx", name + ".oweight", name + ".qweight", true);
    return w;
}

DETENT_INLINE void read_weak(tensor_reader const& tensors, packed_matrix& w, std::string const& positions,
                             std::string const& numbers, std::string const& codes, bool may_be_transposed) {
    if (!tensors.contains(positions) && !tensors.contains(numbers)) {
        return;
    }
    auto const [out, in] = w.shape();
    auto const& listed = tensors.at(positions).shape;
    index_t const count = listed.size() == 1 ? listed[0] : 0;
    auto columns = tensors.integers<std::int32_t>(positions, {count});
    for (index_t k = 0; k < count; ++k) {
        auto const i = static_cast<std::size_t>(k);
        if (columns[i] < 0 || columns[i] >= in) {
            throw tensors.wrong(positions, "names a column that is not there");
        }
        if (k > 0 && columns[i] <= columns[i - 1]) {
            throw tensors.wrong(positions, "is not ascending");
        }
    }
    auto const& stored = tensors.at(numbers);
    // More rows than columns: one row for each output, unless there really are so many weak columns.
    bool const transposed = may_be_transposed && out != count && stored.shape == std::vector{out, count};
    auto const values = tensors.floats(numbers, transposed ? stored.shape : std::vector{count, out});
    if (stored.type != dtype::f16 && stored.type != dtype::bf16 && stored.type != dtype::f32) {
        throw tensors.wrong_type(numbers);
    }
    w.weak = weak_columns(std::move(columns), out, float_format_of(stored.type));
    for (index_t k = 0; k < count; ++k) {
        index_t const col = w.weak.columns()[static_cast<std::size_t>(k)];
        for (index_t row = 0; row < out; ++row) {
            w.weak.set(k, row, values[static_cast<std::size_t>(transposed ? row * count + k : k * out + row)]);
            if (w.table[w.code_at(row, col)] != w.scales.at(row / w.tile.rows, col / w.tile.cols).zero) {
                throw tensors.wrong(codes, "has a code in a weak column that does not stand for 0");
            }
        }
    }
}

/// Reads OWQ's layers.
class owq_reader final : public layout_reader {
public:
    using layout_reader::layout_reader;

    bool contains(std::string const& name) const override { return tensors_.contains(name + ".qweight"); }

    packed_matrix read(std::string const& name, extents shape) const override {
        return read_owq(tensors_, name, shape);
    }
};

DETENT_INLINE nlohmann::json owq_json(std::span<layer_to_save const> all) {
    nlohmann::json settings{{"quant_method", "owq"}, {"group_size", -1}};
    bool symmetric = true;
    for (auto const& layer : all) {
        if (layer.weight != nullptr) {
            settings["bits"] = layer.weight->bits;
            symmetric = symmetric && is_symmetric(*layer.weight);
        }
    }
    settings["sym"] = symmetric;
    return settings;
}

DETENT_INLINE checkpoint_layout const& owq_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::owq,
        .name = "owq",
        .title = "OWQ's",
        .method = "owq",
        .obstacle = owq_obstacle,
        .input_obstacle = [](packed_matrix const*, stored_input const&) -> std::string {
            return "its inputs are not quantized";
        },
        .pair_obstacle = [](packed_matrix const& first, packed_matrix const& other) -> std::string {
            return first.bits != other.bits ? "all of its layers have the same bits and group width" : "";
        },
        .settings = owq_json,
        .add = [](safetensors_writer& file, layer_to_save const& layer,
                  nlohmann::json const&) { add_owq(file, layer.name, *layer.weight); },
        .open = [](checkpoint const& file, quantization_settings const&) -> std::unique_ptr<layout_reader> {
            return std::make_unique<owq_reader>(file);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io
