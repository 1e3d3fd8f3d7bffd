// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/io/float_codes.hpp"
#include "detent/io/packed_parts.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE packed_matrix fp4_matrix(extents shape, std::span<std::uint8_t const> bytes) {
    packed_matrix w;
    w.bits = 4;
    w.extent = shape;
    w.table = code_numbers(e2m1{});
    w.codes = buffer_of(bytes);
    return w;
}

DETENT_INLINE packed_matrix read_fp4(tensor_reader const& tensors, std::string const& tensor, extents shape) {
    if (shape.cols % 2 != 0) {
        throw tensors.wrong(tensor, "holds two inputs in a byte, but there are " + std::to_string(shape.cols));
    }
    return fp4_matrix(shape, tensors.checked_integers<std::uint8_t>(tensor, {shape.rows, shape.cols / 2}).bytes);
}

DETENT_INLINE packed_matrix read_fp8(tensor_reader const& tensors, std::string const& tensor, extents shape) {
    auto const& t = tensors.checked(tensor, {shape.rows, shape.cols});
    if (t.type != dtype::f8_e4m3) {
        throw tensors.wrong_type(tensor);
    }
    packed_matrix w;
    w.bits = 8;
    w.extent = shape;
    w.table = code_numbers(e4m3{});
    if (std::ranges::any_of(t.bytes, [&](std::uint8_t byte) { return std::isnan(w.table[byte]); })) {
        throw tensors.wrong(tensor, "uses a code that stands for no number");
    }
    w.codes = buffer_of(t.bytes);
    return w;
}

/// Makes the codes of a tile stand for 0.
DETENT_INLINE void clear_tile(packed_matrix& w, index_t tile_row, index_t tile_col) {
    auto const zero = static_cast<code>(std::ranges::find(w.table, 0.0F) - w.table.begin());
    with_bits(w.bits, [&]<int Bits> {
        std::vector<code> codes(static_cast<std::size_t>(w.shape().cols));
        for (index_t r = tile_row * w.tile.rows; r < std::min((tile_row + 1) * w.tile.rows, w.shape().rows); ++r) {
            std::uint8_t* const row = w.codes.data() + r * w.row_bytes();
            linear_packing<Bits>::unpack(row, w.shape().cols, codes.data());
            index_t const first = tile_col * w.tile.cols;
            std::fill_n(codes.begin() + first, std::min(w.tile.cols, w.shape().cols - first), zero);
            linear_packing<Bits>::pack(codes.data(), w.shape().cols, row);
        }
    });
}

DETENT_INLINE void read_scales(tensor_reader const& tensors, std::string const& tensor, packed_matrix& w, float unit) {
    extents const tiles{ceil_div(w.shape().rows, w.tile.rows), ceil_div(w.shape().cols, w.tile.cols)};
    auto const& t = tensors.at(tensor);
    bool const column = tiles.cols == 1 && t.shape == std::vector{tiles.rows};
    if (!column && !(tiles.size() == 1 && t.size() == 1)) {
        tensors.checked(tensor, {tiles.rows, tiles.cols});
    }
    bool const powers = t.type == dtype::u8 || t.type == dtype::f8_e8m0;
    if (!powers && t.type != dtype::f8_e4m3) {
        if (bit_size(t.type) > 32) {
            throw tensors.wrong_type(tensor);
        }
        w.scales = scale_store(w.shape(), w.tile, float_format_of(t.type), !w.scales.zeros.empty());
        w.scales.scales = tensors.floats(tensor, t.shape);
        return;
    }
    scale_format const format = powers ? scale_format(scale_kind::e8m0) : scale_format(scale_kind::ue4m3, unit);
    w.scales = scale_store(w.shape(), w.tile, format, !w.scales.zeros.empty());
    for (std::size_t i = 0; i < t.bytes.size(); ++i) {
        float scale = scale_of(format, t.bytes[i]);
        if (format.has_unit() && t.bytes[i] == 0 && w.scales.zeros.empty()) {
            scale = limits_of(format).smallest;
            clear_tile(w, static_cast<index_t>(i) / tiles.cols, static_cast<index_t>(i) % tiles.cols);
        }
        if (std::isnan(scale)) {
            throw tensors.wrong(tensor, "holds a scale that is no positive number");
        }
        w.scales.scales[i] = scale;
    }
}

} // namespace detent::inline DETENT_ABI::io
