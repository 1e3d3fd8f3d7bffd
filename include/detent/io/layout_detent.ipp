// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include "detent/core/error.hpp"
#include "detent/io/json.hpp"
#include "detent/io/layout_detent.hpp"
#include "detent/io/layout_owq.hpp"
#include "detent/io/packed_parts.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE void add_map(safetensors_writer& file, std::string const& name, input_map const& map) {
    for (std::size_t i = 0; i < map.steps().size(); ++i) {
        std::string const step = name + ".map." + std::to_string(i);
        if (auto const* const p = std::get_if<permutation>(&map.steps()[i])) {
            file.add(step + ".order", dtype::i32, {std::ssize(p->order)}, bytes_of(p->order));
        } else if (auto const* const d = std::get_if<diagonal>(&map.steps()[i])) {
            file.add(step + ".factors", dtype::f32, {std::ssize(d->factors)}, bytes_of(d->factors));
        } else {
            auto const width = static_cast<std::int32_t>(std::get<block_hadamard>(map.steps()[i]).width);
            file.add(step + ".hadamard", dtype::i32, {1}, bytes_of(std::vector{width}));
        }
    }
}

DETENT_INLINE void add_packed(safetensors_writer& file, std::string const& name, packed_matrix const& w) {
    extents const tiles = w.scales.tiles;
    file.add(name + ".codes", dtype::u8, {w.shape().rows, w.row_bytes()}, w.codes.bytes());
    file.add(name + ".scales", dtype_of(w.scales.format), {tiles.rows, tiles.cols},
             scale_bytes(w.scales.scales, w.scales.format));
    if (w.scales.format.has_unit()) {
        file.add(name + ".scale_unit", dtype::f32, {1}, bytes_of(std::vector{w.scales.format.unit}));
    }
    file.add(name + ".table", dtype::f32, {std::ssize(w.table)}, bytes_of(w.table));
    file.add(name + ".tile", dtype::i32, {2},
             bytes_of(std::vector{static_cast<std::int32_t>(w.tile.rows), static_cast<std::int32_t>(w.tile.cols)}));
    if (!has_integer_zeros(w)) {
        file.add(name + ".zeros", dtype::f32, {tiles.rows, tiles.cols}, bytes_of(w.scales.zeros));
    } else if (!w.scales.zeros.empty()) {
        std::vector<std::uint8_t> const zeros(w.scales.zeros.begin(), w.scales.zeros.end());
        file.add(name + ".zeros", dtype::u8, {tiles.rows, tiles.cols}, bytes_of(zeros));
    }
    add_map(file, name, w.map);
    if (!w.weak.empty()) {
        file.add(name + ".weak_columns", dtype::i32, {w.weak.count()}, bytes_of(w.weak.columns()));
        file.add(name + ".weak", dtype_of(w.weak.format()), {w.weak.count(), w.shape().rows}, w.weak.values().bytes());
    }
}

DETENT_INLINE void add_input(safetensors_writer& file, std::string const& name, stored_input const& input) {
    auto const add_text = [&](std::string const& tensor, std::string_view text) {
        file.add(name + tensor, dtype::u8, {std::ssize(text)}, std::vector<std::uint8_t>(text.begin(), text.end()));
    };
    auto const add_values = [&](std::string const& tensor, dtype type, auto const& values) {
        if (!values.empty()) {
            file.add(name + tensor, type, {std::ssize(values)}, bytes_of(values));
        }
    };
    add_text(".input_grid", input.grid);
    if (input.width > 0) {
        add_values(".input_width", dtype::i32, std::vector{static_cast<std::int32_t>(input.width)});
    }
    if (input.kind != scale_kind::f32) {
        add_text(".input_scale_type", io::name(dtype_of(input.kind)));
    }
    if (input.unit) {
        add_values(".input_scale_unit", dtype::f32, std::vector{*input.unit});
    }
    add_values(".input_scale", dtype::f32, input.scales);
    add_values(".input_zero", dtype::f32, input.zeros);
    add_values(".input_shifts", dtype::i8, input.shifts);
}

/// Whether there is this tensor of a rounded input, which needs another. @throws error when that is missing.
DETENT_INLINE bool has_input(tensor_reader const& tensors, std::string const& tensor, std::string const& needed) {
    if (!tensors.contains(tensor)) {
        return false;
    }
    if (!tensors.contains(needed)) {
        throw tensors.wrong(tensor, "is there, but '" + printable(needed) + "' is not");
    }
    return true;
}

/// How the scales that tokens of layer `name` get are stored.
DETENT_INLINE scale_kind scale_type(tensor_reader const& tensors, std::string const& name) {
    std::string const tensor = name + ".input_scale_type";
    if (tensors.contains(name + ".input_scale")) {
        throw tensors.wrong(tensor, "is there, but '" + printable(name) + ".input_scale' is too");
    }
    std::string const type = tensors.text(tensor);
    for (auto const kind : {scale_kind::f16, scale_kind::bf16, scale_kind::f32, scale_kind::e8m0, scale_kind::ue4m3}) {
        if (type == io::name(dtype_of(kind))) {
            return kind;
        }
    }
    throw tensors.wrong(tensor, "names the type '" + printable(type) + "', which no scales have");
}

DETENT_INLINE std::optional<stored_input> read_input(tensor_reader const& tensors, std::string const& name,
                                                     index_t in) {
    auto const has = [&](std::string const& tensor, std::string const& needed) {
        return has_input(tensors, name + tensor, name + needed);
    };
    stored_input stored;
    if (has(".input_width", ".input_grid")) {
        stored.width = tensors.integers<std::int32_t>(name + ".input_width", {1}).front();
        if (stored.width < 1) {
            throw tensors.wrong(name + ".input_width", "is not positive");
        }
    }
    std::vector<index_t> const shape{stored.groups(in)};
    if (has(".input_scale", ".input_grid")) {
        stored.scales = tensors.numbers(name + ".input_scale", shape);
        if (std::ranges::any_of(stored.scales, [](float s) { return !(s > 0); })) {
            throw tensors.wrong(name + ".input_scale", "holds a scale that is not positive");
        }
    }
    if (has(".input_zero", ".input_scale")) {
        stored.zeros = tensors.numbers(name + ".input_zero", shape);
    }
    if (has(".input_shifts", ".input_scale")) {
        stored.shifts = tensors.integers<std::int8_t>(name + ".input_shifts", {in});
        if (std::ranges::any_of(stored.shifts, [](int k) { return k < 0 || k > 15; })) {
            throw tensors.wrong(name + ".input_shifts", "holds a shift that is not from 0 to 15");
        }
    }
    if (has(".input_scale_type", ".input_grid")) {
        stored.kind = scale_type(tensors, name);
    }
    if (has(".input_scale_unit", ".input_scale_type")) {
        stored.unit =
            tensors.unit(name + ".input_scale_unit", tensors.numbers(name + ".input_scale_unit", {1}).front());
        if (stored.kind != scale_kind::ue4m3) {
            throw tensors.wrong(name + ".input_scale_unit", "belongs to scales of type F8_E4M3");
        }
    }
    if (!has(".input_grid", ".input_grid")) {
        return {};
    }
    stored.grid = tensors.text(name + ".input_grid");
    return stored;
}

/// The tensors that there are of step `i` of the map of layer `name`: each kind of step has another.
DETENT_INLINE std::vector<std::string> map_tensors(tensor_reader const& tensors, std::string const& name, index_t i) {
    std::vector<std::string> found;
    for (char const* const kind : {".order", ".factors", ".hadamard"}) {
        std::string tensor = name + ".map." + std::to_string(i) + kind;
        if (tensors.contains(tensor)) {
            found.push_back(std::move(tensor));
        }
    }
    return found;
}

/// What happens to the `in` inputs of layer `name`, from the tensors of its steps.
DETENT_INLINE input_map read_map(tensor_reader const& tensors, std::string const& name, index_t in) {
    if (tensors.contains(name + ".order")) {
        throw tensors.wrong(name + ".order", "is of an earlier version of this layout; quantize the model again");
    }
    input_map steps;
    index_t i = 0;
    for (auto found = map_tensors(tensors, name, i); !found.empty(); found = map_tensors(tensors, name, ++i)) {
        std::string const& tensor = found.front();
        if (found.size() > 1) {
            throw tensors.wrong(tensor, "is there, but '" + printable(found.back()) + "' is too");
        }
        auto next =
            tensor.ends_with(".order")     ? input_map::step(permutation{tensors.integers<std::int32_t>(tensor, {in})})
            : tensor.ends_with(".factors") ? input_map::step(diagonal{tensors.numbers(tensor, {in})})
                                           : block_hadamard{tensors.integers<std::int32_t>(tensor, {1}).front()};
        try {
            steps.then(std::move(next), in);
        } catch (error const& e) {
            throw tensors.wrong(tensor, e.what());
        }
    }
    if (auto const late = map_tensors(tensors, name, i + 1); !late.empty()) {
        throw tensors.wrong(late.front(), "comes after a step that is missing");
    }
    return steps;
}

/// The format of the scales of this type of layer `name`.
DETENT_INLINE scale_format scale_format_of(tensor_reader const& tensors, std::string const& name, dtype type) {
    std::string const unit = name + ".scale_unit";
    if (type != dtype::f8_e4m3) {
        if (tensors.contains(unit)) {
            throw tensors.wrong(unit, "belongs to scales of type F8_E4M3, not " + std::string(io::name(type)));
        }
        return type == dtype::f8_e8m0 ? scale_format(scale_kind::e8m0) : scale_format(float_format_of(type));
    }
    return {scale_kind::ue4m3, tensors.unit(unit, tensors.numbers(unit, {1}).front())};
}

DETENT_INLINE packed_matrix read_detent(tensor_reader const& tensors, std::string const& name, extents shape) {
    packed_matrix w;
    w.extent = shape;
    auto const& table = tensors.at(name + ".table");
    index_t const levels = table.shape.size() == 1 ? table.shape[0] : 0;
    while (w.bits < 8 && (index_t{1} << w.bits) < levels) {
        ++w.bits;
    }
    if (levels < 2 || levels != index_t{1} << w.bits) {
        throw tensors.wrong(name + ".table", "must have 2, 4, ... or 256 numbers");
    }
    w.table = tensors.floats(name + ".table", {levels}, true);
    auto const tile = tensors.integers<std::int32_t>(name + ".tile", {2});
    if (tile[0] < 1 || tile[1] < 1 || tile[0] > shape.rows || tile[1] > shape.cols) {
        throw tensors.wrong(name + ".tile", "is no tile of the weights");
    }
    w.tile = {tile[0], tile[1]};
    // Before anything is allocated, the sizes of the tensors must agree with the shape: the file bounds them.
    tensors.checked(name + ".codes", {shape.rows, w.row_bytes()});
    extents const tiles{ceil_div(shape.rows, w.tile.rows), ceil_div(shape.cols, w.tile.cols)};
    auto const& scales = tensors.checked(name + ".scales", {tiles.rows, tiles.cols});
    scale_format const format = scale_format_of(tensors, name, scales.type);
    bool const has_zeros = tensors.contains(name + ".zeros");
    w.scales = scale_store(shape, w.tile, format, has_zeros);
    if (bits_of(format) == 8) {
        w.scales.scales = tensors.scales(name + ".scales", format);
    } else {
        w.scales.scales = tensors.floats(name + ".scales", {tiles.rows, tiles.cols});
    }
    if (has_zeros && tensors.at(name + ".zeros").type == dtype::f32) {
        w.scales.zeros = tensors.floats(name + ".zeros", {tiles.rows, tiles.cols});
    } else if (has_zeros) {
        auto const zeros = tensors.integers<std::uint8_t>(name + ".zeros", {tiles.rows, tiles.cols});
        w.scales.zeros.assign(zeros.begin(), zeros.end());
    }
    w.map = read_map(tensors, name, shape.cols);
    w.codes = buffer_of(tensors.checked_integers<std::uint8_t>(name + ".codes", {shape.rows, w.row_bytes()}).bytes);
    read_weak(tensors, w, name + ".weak_columns", name + ".weak", name + ".codes", false);
    if (std::ranges::any_of(w.table, [](float number) { return std::isnan(number); })) {
        for (index_t row = 0; row < shape.rows; ++row) {
            for (index_t col = 0; col < shape.cols; ++col) {
                if (std::isnan(w.table[w.code_at(row, col)])) {
                    throw tensors.wrong(name + ".codes", "uses a code that stands for no number");
                }
            }
        }
    }
    return w;
}

/// Reads detent's layers.
class detent_reader final : public layout_reader {
public:
    using layout_reader::layout_reader;

    bool contains(std::string const& name) const override { return tensors_.contains(name + ".codes"); }

    packed_matrix read(std::string const& name, extents shape) const override {
        return read_detent(tensors_, name, shape);
    }

    std::optional<stored_input> input(std::string const& name, index_t in) const override {
        return read_input(tensors_, name, in);
    }

    bool has_new_biases() const override { return true; }
};

DETENT_INLINE checkpoint_layout const& detent_layout() {
    static constexpr checkpoint_layout layout{
        .id = packed_layout::detent,
        .name = "detent",
        .title = "detent's",
        .method = "detent",
        .obstacle = [](packed_matrix const&) -> std::string { return {}; },
        .input_obstacle = [](packed_matrix const*, stored_input const&) -> std::string { return {}; },
        // Without `quant_method`, transformers refuses the checkpoint. With a method that it does not know, it would
        // warn, and open the model with random weights.
        .settings = [](std::span<layer_to_save const>) -> nlohmann::json {
            return {{"format", "detent"}};
        },
        .add =
            [](safetensors_writer& file, layer_to_save const& layer, nlohmann::json const&) {
                if (layer.weight != nullptr) {
                    add_packed(file, layer.name, *layer.weight);
                }
                if (layer.input != nullptr) {
                    add_input(file, layer.name, *layer.input);
                }
            },
        .open = [](checkpoint const& file, quantization_settings const&) -> std::unique_ptr<layout_reader> {
            return std::make_unique<detent_reader>(file);
        }};
    return layout;
}

} // namespace detent::inline DETENT_ABI::io
