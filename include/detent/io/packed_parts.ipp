// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/io/packed_parts.hpp"
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

DETENT_INLINE float_format float_format_of(dtype type) {
    return type == dtype::f16 ? float_format::f16 : type == dtype::bf16 ? float_format::bf16 : float_format::f32;
}

DETENT_INLINE packed_matrix integer_matrix(int bits, extents shape, int lowest) {
    packed_matrix w;
    w.bits = bits;
    w.extent = shape;
    for (int c = 0; c < 1 << bits; ++c) {
        w.table.push_back(static_cast<float>(c + lowest));
    }
    return w;
}

DETENT_INLINE bool is_symmetric(packed_matrix const& w) {
    auto const middle = static_cast<float>(1 << (w.bits - 1));
    int const offset = integer_offset(w.table);
    return w.scales.zeros.empty()
               ? static_cast<float>(offset) == middle
               : offset == 0 && std::ranges::all_of(w.scales.zeros, [&](float z) { return z == middle; });
}

DETENT_INLINE code zero_code(packed_matrix const& w, index_t row, index_t group) {
    return static_cast<code>(static_cast<int>(w.scales.at(row, group).zero) + integer_offset(w.table));
}

DETENT_INLINE bool is_fp4(packed_matrix const& w) { return w.bits == 4 && same_bits(w.table, code_numbers(e2m1{})); }

DETENT_INLINE bool is_fp8(packed_matrix const& w) { return w.bits == 8 && same_bits(w.table, code_numbers(e4m3{})); }

DETENT_INLINE buffer buffer_of(std::span<std::uint8_t const> bytes) {
    buffer copy(std::ssize(bytes));
    std::ranges::copy(bytes, copy.data());
    return copy;
}

DETENT_INLINE std::vector<std::int32_t> groups_of_inputs(packed_matrix const& w) {
    std::vector<std::int32_t> group_of(static_cast<std::size_t>(w.shape().cols));
    for (index_t k = 0; k < w.shape().cols; ++k) { // stored column
        group_of[static_cast<std::size_t>(natural(w.map, k))] = static_cast<std::int32_t>(k / w.tile.cols);
    }
    return group_of;
}

DETENT_INLINE std::vector<std::int32_t> order_of_groups(std::vector<std::int32_t> const& group_of) {
    // Storage is in the order of groups: the natural order unless activation order was used.
    std::vector<std::int32_t> order(group_of.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, {}, [&](auto input) { return group_of[static_cast<std::size_t>(input)]; });
    return order;
}

DETENT_INLINE index_t group_width(std::vector<std::int32_t> const& group_of, std::vector<std::int32_t> const& order,
                                  index_t groups) {
    index_t const width = std::ranges::count(group_of, 0);
    for (std::size_t k = 0; k < order.size(); ++k) {
        auto const group = group_of[static_cast<std::size_t>(order[k])];
        if (width == 0 || group != static_cast<index_t>(k) / width || group >= groups) {
            return 0;
        }
    }
    return width;
}

DETENT_INLINE void store_in_order(packed_matrix& w, std::vector<std::int32_t> const& order) {
    if (std::ranges::is_sorted(order)) {
        return;
    }
    w.map = input_map(permutation{order}, w.shape().cols);
    std::vector<std::int32_t> position(order.size()); // of an input in storage
    for (std::size_t k = 0; k < order.size(); ++k) {
        position[static_cast<std::size_t>(order[k])] = static_cast<std::int32_t>(k);
    }
    w.codes = move_columns(w.bits, w.shape(), w.codes.data(), position);
}

DETENT_INLINE packed_matrix take_rows(packed_matrix const& w, std::vector<index_t> const& rows) {
    packed_matrix taken = w;
    auto const count = std::ssize(rows);
    taken.extent.rows = count;
    bool const whole = w.tile.rows >= w.shape().rows;
    taken.tile.rows = whole ? count : w.tile.rows;
    taken.scales = scale_store(taken.extent, taken.tile, w.scales.format, !w.scales.zeros.empty());
    taken.codes = buffer(count * w.row_bytes());
    for (index_t i = 0; i < count; ++i) {
        index_t const row = rows[static_cast<std::size_t>(i)];
        expect_valid(row >= 0 && row < w.shape().rows, "rows", "are not of the matrix");
        expect_valid(whole || row % w.tile.rows == i % w.tile.rows, "packed matrix", "has rows that share scales");
        std::memcpy(taken.codes.data() + i * w.row_bytes(), w.codes.data() + row * w.row_bytes(),
                    static_cast<std::size_t>(w.row_bytes()));
        for (index_t tile = 0; tile < w.scales.tiles.cols; ++tile) {
            taken.scales.set(i / taken.tile.rows, tile, w.scales.at(row / w.tile.rows, tile));
        }
    }
    if (!w.weak.empty()) {
        taken.weak = weak_columns(w.weak.columns(), count, w.weak.format());
        for (index_t k = 0; k < w.weak.count(); ++k) {
            for (index_t i = 0; i < count; ++i) {
                taken.weak.set(k, i, w.weak.at(k, rows[static_cast<std::size_t>(i)]));
            }
        }
    }
    return taken;
}

} // namespace detent::inline DETENT_ABI::io
