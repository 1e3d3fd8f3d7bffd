// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/io/packed_tensors.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/pack/gptq.hpp"
#include "detent/pack/repack.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE std::vector<std::uint8_t> scale_bytes(std::span<float const> scales, scale_format format) {
    auto const stored_as = [&]<class T>(T) {
        std::vector<T> stored;
        for (float const s : scales) {
            stored.push_back(static_cast<T>(s));
        }
        return bytes_of(stored);
    };
    switch (format.kind) {
    case scale_kind::f16:
        return stored_as(half{});
    case scale_kind::bf16:
        return stored_as(bfloat16{});
    case scale_kind::f32:
        return stored_as(float{});
    case scale_kind::e8m0:
    case scale_kind::ue4m3:
        break;
    }
    std::vector<std::uint8_t> stored;
    for (float const s : scales) {
        stored.push_back(byte_of(format, s));
    }
    return stored;
}

DETENT_INLINE int integer_offset(std::span<float const> table) {
    float const offset = -table.front();
    if (!(offset >= 0 && offset < static_cast<float>(table.size()) && offset == std::floor(offset))) {
        return -1;
    }
    for (std::size_t c = 0; c < table.size(); ++c) {
        if (table[c] != static_cast<float>(c) - offset) {
            return -1;
        }
    }
    return static_cast<int>(offset);
}

DETENT_INLINE buffer move_columns(int bits, extents shape, std::uint8_t const* bytes,
                                  std::vector<std::int32_t> const& position) {
    std::vector<code> codes(static_cast<std::size_t>(shape.cols));
    std::vector<code> moved(codes.size());
    return with_bits(bits, [&]<int Bits> {
        using packing = linear_packing<Bits>;
        buffer result(packing::bytes(shape));
        for (index_t row = 0; row < shape.rows; ++row) {
            packing::unpack(bytes + row * packing::row_bytes(shape.cols), shape.cols, codes.data());
            for (std::size_t k = 0; k < codes.size(); ++k) {
                moved[static_cast<std::size_t>(position[k])] = codes[k];
            }
            packing::pack(moved.data(), shape.cols, result.data() + row * packing::row_bytes(shape.cols));
        }
        return result;
    });
}

DETENT_INLINE index_t natural(input_map const& map, index_t k) {
    auto const* const order = map.order();
    return order != nullptr ? (*order)[static_cast<std::size_t>(k)] : k;
}

DETENT_INLINE std::vector<std::uint8_t> code_words(packed_matrix const& w) {
    extents const shape = w.shape();
    auto const* const order = w.map.order();
    buffer const in_place = order == nullptr ? buffer() : move_columns(w.bits, shape, w.codes.data(), *order);
    return with_bits(w.bits, [&]<int Bits> {
        std::vector<std::uint8_t> words(static_cast<std::size_t>(gptq_packing<Bits>::bytes(shape)));
        repack<linear_packing<Bits>, gptq_packing<Bits>>(order == nullptr ? w.codes.data() : in_place.data(), shape,
                                                         words.data());
        return words;
    });
}

DETENT_INLINE std::vector<std::uint8_t> linear_bytes(int bits, extents shape, std::vector<code> const& codes) {
    auto const packed = pack_rows(bits, shape, codes.data());
    return {packed.bytes().begin(), packed.bytes().end()};
}

DETENT_INLINE std::vector<code> linear_codes(int bits, extents shape, std::span<std::uint8_t const> bytes) {
    std::vector<code> codes(static_cast<std::size_t>(shape.size()));
    with_bits(bits, [&]<int Bits> { linear_packing<Bits>::unpack(bytes.data(), shape, codes.data()); });
    return codes;
}

DETENT_INLINE bool has_integer_zeros(packed_matrix const& w) {
    auto const largest = static_cast<float>((1 << w.bits) - 1);
    return std::ranges::all_of(w.scales.zeros,
                               [&](float z) { return z >= 0 && z <= largest && z == std::nearbyint(z); });
}

DETENT_INLINE std::string integer_obstacle(packed_matrix const& w) {
    if (int const offset = integer_offset(w.table); offset < 0 || (offset > 0 && !w.scales.zeros.empty())) {
        return "its grids are integers";
    }
    if (!has_integer_zeros(w)) {
        return "its zero points are integers";
    }
    if (w.tile.rows != 1) {
        return "each of its rows has its own scales";
    }
    return {};
}

DETENT_INLINE std::string gptq_obstacle(packed_matrix const& w) {
    auto const [out, in] = w.shape();
    if (w.bits != 2 && w.bits != 3 && w.bits != 4 && w.bits != 8) {
        return "it stores 2, 3, 4 or 8 bits, not " + std::to_string(w.bits);
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
    if (!w.map.empty() && w.map.order() == nullptr) {
        return "its inputs are only put in another order";
    }
    if (in % 32 != 0 || out * w.bits % 32 != 0) {
        return "a weight of shape (" + std::to_string(out) + ", " + std::to_string(in) + ") does not fill its words";
    }
    return {};
}

DETENT_INLINE void add_gptq(safetensors_writer& file, std::string const& name, packed_matrix const& w) {
    auto const [out, in] = w.shape();
    index_t const groups = w.scales.tiles.cols;
    std::vector<std::int32_t> group_of(static_cast<std::size_t>(in));
    for (index_t k = 0; k < in; ++k) { // stored column
        index_t const input = natural(w.map, k);
        group_of[static_cast<std::size_t>(input)] = static_cast<std::int32_t>(k / w.tile.cols);
    }
    int const offset = integer_offset(w.table);
    std::vector<code> zeros(static_cast<std::size_t>(groups * out));   // (group, out)
    std::vector<float> scales(static_cast<std::size_t>(groups * out)); // (group, out)
    for (index_t group = 0; group < groups; ++group) {
        for (index_t row = 0; row < out; ++row) {
            tile_scale const s = w.scales.at(row, group);
            scales[static_cast<std::size_t>(group * out + row)] = s.scale;
            zeros[static_cast<std::size_t>(group * out + row)] = static_cast<code>(static_cast<int>(s.zero) + offset);
        }
    }
    file.add(name + ".qweight", dtype::i32, {in * w.bits / 32, out}, code_words(w));
    file.add(name + ".qzeros", dtype::i32, {groups, out * w.bits / 32}, linear_bytes(w.bits, {groups, out}, zeros));
    file.add(name + ".scales", dtype::f16, {groups, out}, scale_bytes(scales, float_format::f16));
    file.add(name + ".g_idx", dtype::i32, {in}, bytes_of(group_of));
}

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
    int const offset = integer_offset(w.table);
    std::vector<code> zeros; // stored in 4 bits whatever the codes have
    for (index_t row = 0; row < out; ++row) {
        zeros.push_back(static_cast<code>(static_cast<int>(w.scales.at(row, 0).zero) + offset));
    }
    file.add(name + ".qweight", dtype::i32, {in * w.bits / 32, out}, code_words(w));
    file.add(name + ".scales", dtype_of(w.scales.format), {out, 1}, scale_bytes(w.scales.scales, w.scales.format));
    file.add(name + ".zeros", dtype::u8, {out / 2, 1}, linear_bytes(4, {1, out}, zeros));
    file.add(name + ".oweight", dtype_of(w.weak.format()), {w.weak.count(), out}, w.weak.values().bytes());
    file.add(name + ".outlieridx", dtype::i32, {w.weak.count()}, bytes_of(w.weak.columns()));
}

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

DETENT_INLINE packed_reader::packed_reader(checkpoint const& file, packed_layout layout)
    : file_(file), layout_(layout) {}

DETENT_INLINE bool packed_reader::contains(std::string const& name) const {
    return file_.contains(name + ".qweight") || file_.contains(name + ".codes");
}

DETENT_INLINE packed_matrix packed_reader::read(std::string const& name, extents shape) const {
    if (!file_.contains(name + ".qweight")) {
        return read_detent(name, shape);
    }
    bool const owq = layout_ == packed_layout::owq || file_.contains(name + ".outlieridx");
    return owq ? read_owq(name, shape) : read_gptq(name, shape);
}

DETENT_INLINE std::optional<stored_input> packed_reader::input(std::string const& name, index_t in) const {
    auto const has = [&](std::string const& tensor, std::string const& needed) {
        return has_input(name + tensor, name + needed);
    };
    stored_input stored;
    if (has(".input_width", ".input_grid")) {
        stored.width = integers<std::int32_t>(name + ".input_width", {1}).front();
        if (stored.width < 1) {
            throw wrong(name + ".input_width", "is not positive");
        }
    }
    std::vector<index_t> const shape{stored.groups(in)};
    if (has(".input_scale", ".input_grid")) {
        stored.scales = numbers(name + ".input_scale", shape);
        if (std::ranges::any_of(stored.scales, [](float s) { return !(s > 0); })) {
            throw wrong(name + ".input_scale", "holds a scale that is not positive");
        }
    }
    if (has(".input_zero", ".input_scale")) {
        stored.zeros = numbers(name + ".input_zero", shape);
    }
    if (has(".input_shifts", ".input_scale")) {
        stored.shifts = integers<std::int8_t>(name + ".input_shifts", {in});
        if (std::ranges::any_of(stored.shifts, [](int k) { return k < 0 || k > 15; })) {
            throw wrong(name + ".input_shifts", "holds a shift that is not from 0 to 15");
        }
    }
    if (has(".input_scale_type", ".input_grid")) {
        stored.kind = scale_type(name);
    }
    if (has(".input_scale_unit", ".input_scale_type")) {
        stored.unit = scale_unit(name + ".input_scale_unit");
        if (stored.kind != scale_kind::ue4m3) {
            throw wrong(name + ".input_scale_unit", "belongs to scales of type F8_E4M3");
        }
    }
    if (!has(".input_grid", ".input_grid")) {
        return {};
    }
    stored.grid = text(name + ".input_grid");
    return stored;
}

DETENT_INLINE bool packed_reader::has_input(std::string const& tensor, std::string const& needed) const {
    if (!file_.contains(tensor)) {
        return false;
    }
    if (layout_ != packed_layout::detent) {
        throw wrong(tensor, "is there, but quant_method in config.json is not 'detent'");
    }
    if (!file_.contains(needed)) {
        throw wrong(tensor, "is there, but '" + printable(needed) + "' is not");
    }
    return true;
}

DETENT_INLINE scale_kind packed_reader::scale_type(std::string const& name) const {
    std::string const tensor = name + ".input_scale_type";
    if (file_.contains(name + ".input_scale")) {
        throw wrong(tensor, "is there, but '" + printable(name) + ".input_scale' is too");
    }
    std::string const type = text(tensor);
    for (auto const kind : {scale_kind::f16, scale_kind::bf16, scale_kind::f32, scale_kind::e8m0, scale_kind::ue4m3}) {
        if (type == io::name(dtype_of(kind))) {
            return kind;
        }
    }
    throw wrong(tensor, "names the type '" + printable(type) + "', which no scales have");
}

DETENT_INLINE packed_matrix packed_reader::read_gptq(std::string const& name, extents shape) const {
    auto const [out, in] = shape;
    int const bits = bits_of_words(name, shape);
    if (out * bits % 32 != 0) {
        throw does_not_hold(name, shape);
    }
    auto const& words = checked_integers<std::uint32_t>(name + ".qweight", {in * bits / 32, out});
    auto group_of = integers<std::int32_t>(name + ".g_idx", {in});
    auto const& scales = file_.at(name + ".scales");
    index_t const groups = scales.shape.empty() ? 0 : scales.shape[0];
    auto const scale_values = floats(name + ".scales", {groups, out});
    auto const& zero_words = checked_integers<std::uint32_t>(name + ".qzeros", {groups, out * bits / 32});
    packed_matrix w = integer_matrix(bits, shape);
    // Storage is in the order of groups: the natural order unless activation order was used.
    std::vector<std::int32_t> order(static_cast<std::size_t>(in));
    std::iota(order.begin(), order.end(), 0);
    for (auto& g : group_of) {
        g += static_cast<std::int32_t>(g < 0 ? groups : 0); // negative indices count from the end
    }
    std::ranges::stable_sort(order, {}, [&](auto input) { return group_of[static_cast<std::size_t>(input)]; });
    index_t const width = std::ranges::count(group_of, 0);
    for (index_t k = 0; k < in; ++k) {
        auto const group = group_of[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])];
        if (width == 0 || group != k / width || group >= groups) {
            throw wrong(name + ".g_idx", "its groups are not all of the same width");
        }
    }
    if (!std::ranges::is_sorted(order)) {
        w.map = input_map(permutation{order}, in);
    }
    w.tile = {1, width};
    w.scales = scale_store(shape, w.tile, format_of(scales.type), true);
    if (w.scales.tiles.cols != groups) {
        throw wrong(name + ".scales",
                    "has " + std::to_string(groups) + " groups, g_idx names " + std::to_string(w.scales.tiles.cols));
    }
    auto const zeros = linear_codes(bits, {groups, out}, zero_words.bytes);
    for (index_t row = 0; row < out; ++row) {
        for (index_t group = 0; group < groups; ++group) {
            int zero = zeros[static_cast<std::size_t>(group * out + row)];
            if (layout_ == packed_layout::gptq_v1) {
                zero = (zero + 1) % (1 << bits); // a zero point of 0 was stored as -1
            }
            w.scales.set(row, group,
                         {scale_values[static_cast<std::size_t>(group * out + row)], static_cast<float>(zero)});
        }
    }
    w.codes = linear_of_words(bits, shape, words.bytes);
    if (!w.map.empty()) {
        std::vector<std::int32_t> position(order.size()); // of an input in storage
        for (std::size_t k = 0; k < order.size(); ++k) {
            position[static_cast<std::size_t>(order[k])] = static_cast<std::int32_t>(k);
        }
        w.codes = move_columns(bits, shape, w.codes.data(), position);
    }
    return w;
}

DETENT_INLINE packed_matrix packed_reader::read_owq(std::string const& name, extents shape) const {
    auto const [out, in] = shape;
    int const bits = bits_of_words(name, shape);
    if ((bits != 3 && bits != 4) || out % 2 != 0) {
        throw does_not_hold(name, shape);
    }
    auto const& words = checked_integers<std::uint32_t>(name + ".qweight", {in * bits / 32, out});
    packed_matrix w = integer_matrix(bits, shape);
    w.tile = {1, in};
    auto const& scales = file_.at(name + ".scales");
    auto const scale_values = floats(name + ".scales", column(scales, out));
    auto const zeros =
        linear_codes(4, {1, out}, integers<std::uint8_t>(name + ".zeros", column(file_.at(name + ".zeros"), out / 2)));
    w.scales = scale_store(shape, w.tile, format_of(scales.type), true);
    for (index_t row = 0; row < out; ++row) {
        int const zero = zeros[static_cast<std::size_t>(row)];
        if (zero >= 1 << bits) {
            throw wrong(name + ".zeros", "holds a zero point that is no code");
        }
        w.scales.set(row, 0, {scale_values[static_cast<std::size_t>(row)], static_cast<float>(zero)});
    }
    w.codes = linear_of_words(bits, shape, words.bytes);
    read_weak(w, name + ".outlieridx", name + ".oweight", name + ".qweight", true);
    return w;
}

DETENT_INLINE int packed_reader::bits_of_words(std::string const& name, extents shape) const {
    auto const& words = file_.at(name + ".qweight").shape;
    index_t const rows = words.empty() ? 0 : words[0];
    int const bits = shape.cols > 0 ? static_cast<int>(std::min<index_t>(9, rows * 32 / shape.cols)) : 0;
    if (bits < 1 || bits > 8 || shape.cols * bits / 32 != rows || shape.cols * bits % 32 != 0) {
        throw does_not_hold(name, shape);
    }
    return bits;
}

DETENT_INLINE input_map packed_reader::map(std::string const& name, index_t in) const {
    if (file_.contains(name + ".order")) {
        throw wrong(name + ".order", "is of an earlier version of this layout; quantize the model again");
    }
    input_map steps;
    index_t i = 0;
    for (auto found = map_tensors(name, i); !found.empty(); found = map_tensors(name, ++i)) {
        std::string const& tensor = found.front();
        if (found.size() > 1) {
            throw wrong(tensor, "is there, but '" + printable(found.back()) + "' is too");
        }
        auto next = tensor.ends_with(".order")     ? input_map::step(permutation{integers<std::int32_t>(tensor, {in})})
                    : tensor.ends_with(".factors") ? input_map::step(diagonal{numbers(tensor, {in})})
                                                   : block_hadamard{integers<std::int32_t>(tensor, {1}).front()};
        try {
            steps.then(std::move(next), in);
        } catch (error const& e) {
            throw wrong(tensor, e.what());
        }
    }
    if (auto const late = map_tensors(name, i + 1); !late.empty()) {
        throw wrong(late.front(), "comes after a step that is missing");
    }
    return steps;
}

DETENT_INLINE std::vector<std::string> packed_reader::map_tensors(std::string const& name, index_t i) const {
    std::vector<std::string> found;
    for (char const* const kind : {".order", ".factors", ".hadamard"}) {
        std::string tensor = name + ".map." + std::to_string(i) + kind;
        if (file_.contains(tensor)) {
            found.push_back(std::move(tensor));
        }
    }
    return found;
}

DETENT_INLINE error packed_reader::does_not_hold(std::string const& name, extents shape) const {
    return wrong(name + ".qweight", "its shape does not hold weights of shape (" + std::to_string(shape.rows) + ", " +
                                        std::to_string(shape.cols) + ")");
}

DETENT_INLINE packed_matrix packed_reader::integer_matrix(int bits, extents shape) {
    packed_matrix w;
    w.bits = bits;
    w.extent = shape;
    for (int c = 0; c < 1 << bits; ++c) {
        w.table.push_back(static_cast<float>(c));
    }
    return w;
}

DETENT_INLINE buffer packed_reader::linear_of_words(int bits, extents shape, std::span<std::uint8_t const> words) {
    return with_bits(bits, [&]<int Bits> {
        buffer codes(linear_packing<Bits>::bytes(shape));
        repack<gptq_packing<Bits>, linear_packing<Bits>>(words.data(), shape, codes.data());
        return codes;
    });
}

DETENT_INLINE std::vector<index_t> packed_reader::column(tensor_view const& t, index_t n) {
    return t.shape.size() == 1 ? std::vector{n} : std::vector{n, index_t{1}};
}

DETENT_INLINE void packed_reader::read_weak(packed_matrix& w, std::string const& positions, std::string const& numbers,
                                            std::string const& codes, bool may_be_transposed) const {
    if (!file_.contains(positions) && !file_.contains(numbers)) {
        return;
    }
    auto const [out, in] = w.shape();
    auto const& listed = file_.at(positions).shape;
    index_t const count = listed.size() == 1 ? listed[0] : 0;
    auto columns = integers<std::int32_t>(positions, {count});
    for (index_t k = 0; k < count; ++k) {
        auto const i = static_cast<std::size_t>(k);
        if (columns[i] < 0 || columns[i] >= in) {
            throw wrong(positions, "names a column that is not there");
        }
        if (k > 0 && columns[i] <= columns[i - 1]) {
            throw wrong(positions, "is not ascending");
        }
    }
    auto const& stored = file_.at(numbers);
    // More rows than columns: one row for each output, unless there really are so many weak columns.
    bool const transposed = may_be_transposed && out != count && stored.shape == std::vector{out, count};
    auto const values = floats(numbers, transposed ? stored.shape : std::vector{count, out});
    if (stored.type != dtype::f16 && stored.type != dtype::bf16 && stored.type != dtype::f32) {
        throw wrong(numbers, "has type " + std::string(io::name(stored.type)));
    }
    w.weak = weak_columns(std::move(columns), out, format_of(stored.type));
    for (index_t k = 0; k < count; ++k) {
        index_t const col = w.weak.columns()[static_cast<std::size_t>(k)];
        for (index_t row = 0; row < out; ++row) {
            w.weak.set(k, row, values[static_cast<std::size_t>(transposed ? row * count + k : k * out + row)]);
            if (w.table[w.code_at(row, col)] != w.scales.at(row / w.tile.rows, col / w.tile.cols).zero) {
                throw wrong(codes, "has a code in a weak column that does not stand for 0");
            }
        }
    }
}

DETENT_INLINE packed_matrix packed_reader::read_detent(std::string const& name, extents shape) const {
    packed_matrix w;
    w.extent = shape;
    auto const& table = file_.at(name + ".table");
    index_t const levels = table.shape.size() == 1 ? table.shape[0] : 0;
    while (w.bits < 8 && (index_t{1} << w.bits) < levels) {
        ++w.bits;
    }
    if (levels < 2 || levels != index_t{1} << w.bits) {
        throw wrong(name + ".table", "must have 2, 4, ... or 256 numbers");
    }
    w.table = floats(name + ".table", {levels}, true);
    auto const tile = integers<std::int32_t>(name + ".tile", {2});
    if (tile[0] < 1 || tile[1] < 1 || tile[0] > shape.rows || tile[1] > shape.cols) {
        throw wrong(name + ".tile", "is no tile of the weights");
    }
    w.tile = {tile[0], tile[1]};
    // Before anything is allocated, the sizes of the tensors must agree with the shape: the file bounds them.
    checked(name + ".codes", {shape.rows, w.row_bytes()});
    extents const tiles{ceil_div(shape.rows, w.tile.rows), ceil_div(shape.cols, w.tile.cols)};
    auto const& scales = checked(name + ".scales", {tiles.rows, tiles.cols});
    scale_format const format = scale_format_of(name, scales.type);
    bool const has_zeros = file_.contains(name + ".zeros");
    w.scales = scale_store(shape, w.tile, format, has_zeros);
    if (bits_of(format) == 8) {
        std::ranges::transform(scales.bytes, w.scales.scales.begin(),
                               [&](std::uint8_t byte) { return scale_of(format, byte); });
        if (std::ranges::any_of(w.scales.scales, [](float s) { return std::isnan(s); })) {
            throw wrong(name + ".scales", "holds a scale that is no positive number");
        }
    } else {
        w.scales.scales = floats(name + ".scales", {tiles.rows, tiles.cols});
    }
    if (has_zeros && file_.at(name + ".zeros").type == dtype::f32) {
        w.scales.zeros = floats(name + ".zeros", {tiles.rows, tiles.cols});
    } else if (has_zeros) {
        auto const zeros = integers<std::uint8_t>(name + ".zeros", {tiles.rows, tiles.cols});
        w.scales.zeros.assign(zeros.begin(), zeros.end());
    }
    w.map = map(name, shape.cols);
    auto const codes = integers<std::uint8_t>(name + ".codes", {shape.rows, w.row_bytes()});
    w.codes = buffer(std::ssize(codes));
    std::ranges::copy(codes, w.codes.data());
    read_weak(w, name + ".weak_columns", name + ".weak", name + ".codes", false);
    if (std::ranges::any_of(w.table, [](float number) { return std::isnan(number); })) {
        for (index_t row = 0; row < shape.rows; ++row) {
            for (index_t col = 0; col < shape.cols; ++col) {
                if (std::isnan(w.table[w.code_at(row, col)])) {
                    throw wrong(name + ".codes", "uses a code that stands for no number");
                }
            }
        }
    }
    return w;
}

DETENT_INLINE error packed_reader::wrong(std::string const& tensor, std::string const& problem) const {
    return {subject_of(file_.path(), tensor), problem};
}

DETENT_INLINE tensor_view const& packed_reader::checked(std::string const& tensor,
                                                        std::vector<index_t> const& shape) const {
    auto const& t = file_.at(tensor);
    if (t.shape != shape) {
        std::string expected;
        for (index_t const n : shape) {
            expected += (expected.empty() ? "" : ", ") + std::to_string(n);
        }
        throw wrong(tensor, "must have the shape (" + expected + ")");
    }
    return t;
}

DETENT_INLINE std::vector<float> packed_reader::floats(std::string const& tensor, std::vector<index_t> const& shape,
                                                       bool nan_allowed) const {
    auto values = to_floats(checked(tensor, shape), tensor);
    if (!std::ranges::all_of(values, [&](float v) { return std::isfinite(v) || (nan_allowed && std::isnan(v)); })) {
        throw wrong(tensor, "holds a value that is not finite");
    }
    return values;
}

DETENT_INLINE std::vector<float> packed_reader::numbers(std::string const& tensor,
                                                        std::vector<index_t> const& shape) const {
    auto const& t = checked(tensor, shape);
    if (t.type != dtype::f32) {
        throw wrong(tensor, "has type " + std::string(io::name(t.type)));
    }
    return floats(tensor, shape);
}

DETENT_INLINE std::string packed_reader::text(std::string const& tensor) const {
    auto const& letters = file_.at(tensor).shape;
    if (letters.size() != 1) {
        throw wrong(tensor, "is no text");
    }
    auto const bytes = integers<std::uint8_t>(tensor, letters);
    return {bytes.begin(), bytes.end()};
}

DETENT_INLINE float packed_reader::scale_unit(std::string const& tensor) const {
    float const value = numbers(tensor, {1}).front();
    if (!(value >= unit_limits::lowest && value <= unit_limits::highest)) {
        throw wrong(tensor, "must be a number from 2^-117 to 2^119");
    }
    return value;
}

DETENT_INLINE float_format packed_reader::format_of(dtype type) {
    return type == dtype::f16 ? float_format::f16 : type == dtype::bf16 ? float_format::bf16 : float_format::f32;
}

DETENT_INLINE scale_format packed_reader::scale_format_of(std::string const& name, dtype type) const {
    std::string const unit = name + ".scale_unit";
    if (type != dtype::f8_e4m3) {
        if (file_.contains(unit)) {
            throw wrong(unit, "belongs to scales of type F8_E4M3, not " + std::string(io::name(type)));
        }
        return type == dtype::f8_e8m0 ? scale_format(scale_kind::e8m0) : scale_format(format_of(type));
    }
    return {scale_kind::ue4m3, scale_unit(unit)};
}

} // namespace detent::inline DETENT_ABI::io
