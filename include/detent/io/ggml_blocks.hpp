// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/half.hpp"
#include "detent/core/index.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/pack/ggml.hpp"
#include "detent/pack/repack.hpp"

// What turns blocks of ggml into packed matrices and back, for any kind of block: a struct with
//
// * `bits`, `block_codes`, `block_bytes`, `tile_cols` (consecutive weights that share a scale), `format` (of scales);
// * `number(code)`: the number of a code, before the scale;
// * `packing` and `codes_at` where codes lie as in `ggml_packing`, `linear_codes_at` where they are in linear packing;
//   else `codes(block, code*)`, and `put_codes(code const*, block)` if it is written too; `flip`, if stored codes are
//   the others with these bits turned;
// * `scale(block, i)`: the scale of tile i of a block; where `has_least`, also `least(block, i)`: what is added;
// * `put_scale(block, i, scale, format)`, and where `has_least` `put_least(block, i, least)`, if it is written too.
//
// A row of weights is of whole blocks. So their codes in linear packing are of whole bytes, and follow one another
// without gaps, through the whole matrix.

namespace detent::inline DETENT_ABI::io {

/// The f16 number at an address.
inline float half_at(std::uint8_t const* bytes) {
    half h;
    std::memcpy(&h, bytes, sizeof h);
    return static_cast<float>(h);
}

/// Stores `number` as f16, rounded to nearest.
inline void put_half(float number, std::uint8_t* bytes) {
    half const h(number);
    std::memcpy(bytes, &h, sizeof h);
}

/// Whether `scale` is a number of the format, to the bit; infinite ones and NaN are none.
inline bool holds(scale_format format, float scale) {
    if (!is_finite(scale)) {
        return false;
    }
    switch (format.kind) {
    case scale_kind::f16:
        return static_cast<float>(half(scale)) == scale;
    case scale_kind::bf16:
        return static_cast<float>(bfloat16(scale)) == scale;
    case scale_kind::f32:
        return true;
    default:
        return scale_of(format, byte_of(format, scale)) == scale;
    }
}

/// How many tiles a block has.
template <class Block> constexpr index_t tiles_of_block = Block::block_codes / Block::tile_cols;

/// The codes of blocks in linear packing.
template <class Block> void codes_to_linear(std::uint8_t const* blocks, extents shape, std::uint8_t* linear) {
    constexpr index_t linear_bytes = Block::block_codes * Block::bits / 8;
    if constexpr (requires { typename Block::packing; }) {
        if (shape.size() > 0) {
            repack<typename Block::packing, linear_packing<Block::bits>>(blocks + Block::codes_at, shape, linear);
        }
    } else if constexpr (requires { Block::linear_codes_at; }) {
        for (index_t b = 0; b < shape.size() / Block::block_codes; ++b) {
            std::memcpy(linear + b * linear_bytes, blocks + b * Block::block_bytes + Block::linear_codes_at,
                        linear_bytes);
        }
    } else {
        code codes[array_size(Block::block_codes)];
        for (index_t b = 0; b < shape.size() / Block::block_codes; ++b) {
            Block::codes(blocks + b * Block::block_bytes, codes);
            linear_packing<Block::bits>::pack(codes, Block::block_codes, linear + b * linear_bytes);
        }
    }
    if constexpr (requires { Block::flip; }) {
        static_assert(Block::bits == 8);
        for (index_t i = 0; i < shape.size(); i += 8) { // blocks are multiples
            std::uint64_t eight;
            std::memcpy(&eight, linear + i, 8);
            eight ^= std::uint64_t{0x0101010101010101} * Block::flip;
            std::memcpy(linear + i, &eight, 8);
        }
    }
}

/// Undoes `codes_to_linear`, but for flipped bits.
template <class Block> void codes_from_linear(std::uint8_t const* linear, extents shape, std::uint8_t* blocks) {
    constexpr index_t linear_bytes = Block::block_codes * Block::bits / 8;
    if constexpr (requires { typename Block::packing; }) {
        if (shape.size() > 0) {
            repack<linear_packing<Block::bits>, typename Block::packing>(linear, shape, blocks + Block::codes_at);
        }
    } else if constexpr (requires { Block::linear_codes_at; }) {
        for (index_t b = 0; b < shape.size() / Block::block_codes; ++b) {
            std::memcpy(blocks + b * Block::block_bytes + Block::linear_codes_at, linear + b * linear_bytes,
                        linear_bytes);
        }
    } else {
        code codes[array_size(Block::block_codes)];
        for (index_t b = 0; b < shape.size() / Block::block_codes; ++b) {
            linear_packing<Block::bits>::unpack(linear + b * linear_bytes, Block::block_codes, codes);
            Block::put_codes(codes, blocks + b * Block::block_bytes);
        }
    }
}

/// Lets all codes of tile `i` of a matrix that was read from blocks be 0.
template <class Block> void clear_tile(packed_matrix& w, index_t i) {
    static_assert(Block::tile_cols * Block::bits % 8 == 0);
    constexpr index_t bytes = Block::tile_cols * Block::bits / 8;
    std::memset(w.codes.data() + i * bytes, 0, static_cast<std::size_t>(bytes));
}

/// The zero point, an integer within the codes, whose product with the scale is minus `least` as f16 rounds it; none
/// if there is no such.
inline std::optional<float> integer_zero(int bits, float scale, float least) {
    float const zero = scale != 0 ? std::nearbyint(-least / scale) : 0;
    bool const found =
        zero >= 0 && zero < static_cast<float>(1 << bits) && static_cast<float>(half(-zero * scale)) == least;
    return found ? std::optional(zero) : std::nullopt;
}

/// Zero points in place of what is added to all weights of a tile, `least`. Matrices that were written with zero points
/// get these again, which says every tile of them; all others get -least / scale. A tile with the scale 0 has one
/// number: code 0 and a scale and zero point that give it.
template <class Block> void set_zeros(packed_matrix& w, std::vector<float> const& least) {
    auto& [tiles, format, scales, zeros] = w.scales;
    std::size_t i = 0;
    while (i < scales.size() && format == float_format::f16) {
        auto const zero = integer_zero(w.bits, scales[i], least[i]);
        if (!zero) {
            break;
        }
        zeros[i++] = *zero;
    }
    for (i = i == scales.size() ? i : 0; i < scales.size(); ++i) {
        if (scales[i] != 0) {
            zeros[i] = -least[i] / scales[i];
        } else {
            scales[i] = std::abs(least[i]);
            zeros[i] = least[i] > 0 ? -1.0F : least[i] < 0 ? 1.0F : 0.0F;
            clear_tile<Block>(w, static_cast<index_t>(i));
        }
    }
}

/// The scales of the blocks at `blocks`. @throws error naming the block where one is no finite number.
template <class Block> void read_scales(std::uint8_t const* blocks, packed_matrix& w) {
    constexpr index_t tiles = tiles_of_block<Block>;
    std::vector<float> least(w.scales.zeros.size());
    for (index_t i = 0; i < std::ssize(w.scales.scales); ++i) {
        std::uint8_t const* const block = blocks + i / tiles * Block::block_bytes;
        float& scale = w.scales.scales[static_cast<std::size_t>(i)];
        scale = Block::scale(block, i % tiles);
        bool finite = is_finite(scale);
        if constexpr (Block::has_least) {
            float const added = least[static_cast<std::size_t>(i)] = Block::least(block, i % tiles);
            finite = finite && is_finite(added);
        }
        if (!finite) {
            throw error("block " + std::to_string(i / tiles), "has a scale that is no finite number");
        }
        if (bits_of(w.scales.format) == 8 && scale == 0) { // which the format has not: zeros at the smallest scale
            scale = limits_of(w.scales.format).smallest;
            clear_tile<Block>(w, i);
        }
    }
    if constexpr (Block::has_least) {
        set_zeros<Block>(w, least);
    }
}

/// The matrix of whole blocks, row by row. @throws error naming the block where a scale is no finite number.
template <class Block> packed_matrix read_blocks(std::uint8_t const* blocks, extents shape) {
    packed_matrix w;
    w.bits = Block::bits;
    w.extent = shape;
    w.tile = {1, Block::tile_cols};
    w.scales = scale_store(shape, w.tile, Block::format, Block::has_least);
    for (int c = 0; c < 1 << Block::bits; ++c) {
        w.table.push_back(Block::number(static_cast<code>(c)));
    }
    w.codes = buffer(shape.size() * Block::bits / 8);
    codes_to_linear<Block>(blocks, shape, w.codes.data());
    read_scales<Block>(blocks, w);
    return w;
}

/// The zero point that all tiles have, 0 without zero points; none where they differ.
inline std::optional<float> common_zero(packed_matrix const& w) {
    auto const& zeros = w.scales.zeros;
    if (zeros.empty()) {
        return 0.0F;
    }
    bool const same = std::ranges::all_of(zeros, [&](float z) { return z == zeros.front(); });
    return same ? std::optional(zeros.front()) : std::nullopt;
}

/// The stored code of each code of a matrix.
using code_names = std::array<code, 256>;

/// The codes that blocks store for those of `w`, by the numbers they stand for; none where some number has no code. The
/// code for -0 is not that for 0 where there are two.
template <class Block> std::optional<code_names> names_of(packed_matrix const& w) {
    auto const zero = common_zero(w);
    code flipped = 0;
    if constexpr (requires { Block::flip; }) {
        flipped = Block::flip;
    }
    code_names names{};
    for (std::size_t c = 0; c < w.table.size(); ++c) {
        names[c] = static_cast<code>(c ^ flipped);
        float const number = w.table[c] - zero.value_or(0);
        auto const is_named = [&](std::size_t stored) {
            float const other = Block::number(static_cast<code>(stored));
            return other == number && std::signbit(other) == std::signbit(number);
        };
        if (is_nan(w.table[c]) || (zero && is_named(c))) {
            continue; // the same code, as of most matrices, or one that is not used
        }
        std::size_t stored = 0;
        while (stored < w.table.size() && Block::number(static_cast<code>(stored)) != number) {
            ++stored;
        }
        if (!zero || stored == w.table.size()) {
            return std::nullopt;
        }
        names[c] = static_cast<code>(stored ^ flipped);
    }
    return names;
}

/// What is added to the weights of a tile whose codes count from 0.
inline float least_of(packed_matrix const& w, tile_scale s) { return (w.table.front() - s.zero) * s.scale; }

/// Why the numbers of `w` are not those of the blocks; empty when they are.
template <class Block> std::string number_obstacle(packed_matrix const& w) {
    if constexpr (Block::has_least) {
        if (!is_consecutive(w.table)) {
            return "its grids are integers";
        }
        for (std::size_t i = 0; i < w.scales.scales.size(); ++i) {
            tile_scale const s{w.scales.scales[i], w.scales.zeros.empty() ? 0 : w.scales.zeros[i]};
            if (!is_finite(static_cast<float>(half(least_of(w, s))))) {
                return "its zero points times their scales are finite numbers of f16";
            }
        }
    } else if (!names_of<Block>(w)) {
        return w.scales.zeros.empty() ? "its grid has other numbers"
                                      : "it has no zero points, but the same for all weights, as symmetric grids have";
    }
    return {};
}

/// Why blocks cannot hold codes and tiles that lie as those of `w`, as the end of a sentence about their type; empty
/// when they can.
template <class Block> std::string place_obstacle(packed_matrix const& w) {
    if (w.bits != Block::bits) {
        return "it stores " + std::to_string(Block::bits) + " bits, not " + std::to_string(w.bits);
    }
    if (!w.weak.empty()) {
        return "it has no weak columns";
    }
    if (!w.map.empty()) {
        return "its inputs are as they come";
    }
    index_t const in = w.shape().cols;
    if (in % Block::block_codes != 0) {
        return "a row of " + std::to_string(in) + " weights is not of whole blocks, which have " +
               std::to_string(Block::block_codes);
    }
    if (w.tile.cols % Block::tile_cols != 0 && w.tile.cols < in) {
        return "its scales are each of " + std::to_string(Block::tile_cols) + " weights, not of " +
               std::to_string(w.tile.cols);
    }
    return {};
}

/// Why blocks cannot hold `w` to the bit, as the end of a sentence about their type; empty when they can.
template <class Block> std::string block_obstacle(packed_matrix const& w) {
    if (auto obstacle = place_obstacle<Block>(w); !obstacle.empty()) {
        return obstacle;
    }
    scale_format const format{Block::format, Block::format == scale_kind::ue4m3 ? w.scales.format.unit : 1};
    if (!std::ranges::all_of(w.scales.scales, [&](float s) { return holds(format, s); })) {
        return std::string("its scales are ") + (Block::format == scale_kind::e8m0    ? "powers of two (E8M0)"
                                                 : Block::format == scale_kind::ue4m3 ? "E4M3"
                                                                                      : "f16");
    }
    return number_obstacle<Block>(w);
}

/// Writes rows [first, last) of `w`, which has no obstacle, as blocks. What is added to a tile is rounded to f16; all
/// else is to the bit.
template <class Block> void write_blocks(packed_matrix const& w, index_t first, index_t last, std::uint8_t* blocks) {
    constexpr int bits = Block::bits;
    extents const shape{last - first, w.shape().cols};
    std::uint8_t const* codes = w.codes.data() + first * w.row_bytes();
    buffer renamed;
    if constexpr (!Block::has_least) {
        auto const names = names_of<Block>(w).value();
        std::size_t same = 0;
        while (same < w.table.size() && names[same] == same) {
            ++same;
        }
        if (same < w.table.size()) {
            renamed = buffer(shape.size() * bits / 8);
            std::vector<code> row(static_cast<std::size_t>(shape.cols));
            for (index_t r = 0; r < shape.rows; ++r) {
                linear_packing<bits>::unpack(codes + r * w.row_bytes(), shape.cols, row.data());
                std::ranges::transform(row, row.begin(), [&](code c) { return names[c]; });
                linear_packing<bits>::pack(row.data(), shape.cols, renamed.data() + r * w.row_bytes());
            }
            codes = renamed.data();
        }
    }
    codes_from_linear<Block>(codes, shape, blocks);
    index_t const tiles = shape.cols / Block::tile_cols; // of a row
    for (index_t row = 0; row < shape.rows; ++row) {
        for (index_t i = 0; i < tiles; ++i) {
            std::uint8_t* const block = blocks + (row * tiles + i) / tiles_of_block<Block> * Block::block_bytes;
            index_t const tile = i % tiles_of_block<Block>;
            tile_scale const s = w.scales.at((first + row) / w.tile.rows, i * Block::tile_cols / w.tile.cols);
            Block::put_scale(block, tile, s.scale, w.scales.format);
            if constexpr (Block::has_least) {
                Block::put_least(block, tile, least_of(w, s));
            }
        }
    }
}

} // namespace detent::inline DETENT_ABI::io
