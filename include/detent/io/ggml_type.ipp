// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/io/ggml_blocks.hpp"
#include "detent/io/ggml_formats.hpp"
#include "detent/io/ggml_super_blocks.hpp"
#include "detent/io/ggml_type.hpp"
#include "detent/io/json.hpp"

namespace detent::inline DETENT_ABI::io {

/// A matrix of ternary weights: without the number that a code of 2 bits could have, where none has it, as that of the
/// grid.
template <class Block> packed_matrix read_ternary(std::uint8_t const* blocks, extents shape) {
    auto w = read_blocks<Block>(blocks, shape);
    auto const is_three = [](std::uint8_t four) { return (four & four >> 1 & 0x55) != 0; };
    if (std::ranges::none_of(w.codes.bytes(), is_three)) {
        w.table[3] = std::numeric_limits<float>::quiet_NaN();
    }
    return w;
}

/// The entry of a type that is read.
template <class Block> constexpr ggml_type read_only(std::uint32_t id, std::string_view name) {
    return {id, name, Block::block_codes, Block::block_bytes, {}, &read_blocks<Block>};
}

/// The entry of a type that is read and written.
template <class Block> constexpr ggml_type read_and_written(std::uint32_t id, std::string_view name) {
    ggml_type type = read_only<Block>(id, name);
    type.obstacle_of = &block_obstacle<Block>;
    type.write = &write_blocks<Block>;
    return type;
}

/// The entry of one whose scales have two levels.
template <class Block> constexpr ggml_type of_two_levels(std::uint32_t id, std::string_view name) {
    ggml_type type = read_only<Block>(id, name);
    type.obstacle_of = &super_block_obstacle<Block>;
    type.write = &write_super_blocks<Block>;
    return type;
}

/// The entry of one whose codes may be ternary.
template <class Block> constexpr ggml_type of_ternary(std::uint32_t id, std::string_view name) {
    ggml_type type = read_and_written<Block>(id, name);
    type.read = &read_ternary<Block>;
    return type;
}

DETENT_INLINE std::span<ggml_type const> ggml_types() {
    static constexpr ggml_type types[] = {
        {0, "F32", 1, 4, dtype::f32},
        {1, "F16", 1, 2, dtype::f16},
        read_and_written<ggml::q4_0>(2, "Q4_0"),
        read_and_written<ggml::q4_1>(3, "Q4_1"),
        read_and_written<ggml::q5_0>(6, "Q5_0"),
        read_and_written<ggml::q5_1>(7, "Q5_1"),
        read_and_written<ggml::q8_0>(8, "Q8_0"),
        {9, "Q8_1", 32, 36},
        of_two_levels<ggml::q2_k>(10, "Q2_K"),
        of_two_levels<ggml::q3_k>(11, "Q3_K"),
        of_two_levels<ggml::q4_k>(12, "Q4_K"),
        of_two_levels<ggml::q5_k>(13, "Q5_K"),
        of_two_levels<ggml::q6_k>(14, "Q6_K"),
        {15, "Q8_K", 256, 292},
        {16, "IQ2_XXS", 256, 66},
        {17, "IQ2_XS", 256, 74},
        {18, "IQ3_XXS", 256, 98},
        {19, "IQ1_S", 256, 50},
        read_and_written<ggml::iq4_nl>(20, "IQ4_NL"),
        {21, "IQ3_S", 256, 110},
        {22, "IQ2_S", 256, 82},
        read_only<ggml::iq4_xs>(23, "IQ4_XS"),
        {24, "I8", 1, 1, dtype::i8},
        {25, "I16", 1, 2, dtype::i16},
        {26, "I32", 1, 4, dtype::i32},
        {27, "I64", 1, 8, dtype::i64},
        {28, "F64", 1, 8, dtype::f64},
        {29, "IQ1_M", 256, 56},
        {30, "BF16", 1, 2, dtype::bf16},
        of_ternary<ggml::tq1_0>(34, "TQ1_0"),
        of_ternary<ggml::tq2_0>(35, "TQ2_0"),
        read_and_written<ggml::mxfp4>(39, "MXFP4"),
        read_and_written<ggml::nvfp4>(40, "NVFP4"),
        read_and_written<ggml::q1_0>(41, "Q1_0"),
        of_ternary<ggml::q2_0>(42, "Q2_0"),
    };
    return types;
}

DETENT_INLINE ggml_type const* find_ggml_type(std::uint32_t id) {
    auto const found = std::ranges::find(ggml_types(), id, &ggml_type::id);
    return found != ggml_types().end() ? &*found : nullptr;
}

DETENT_INLINE ggml_type const& ggml_type_named(std::string_view name) {
    auto const found = std::ranges::find(ggml_types(), name, &ggml_type::name);
    if (found == ggml_types().end()) {
        throw error("ggml's type '" + printable(name) + "'", "is not known");
    }
    return *found;
}

DETENT_INLINE std::string ggml_type::obstacle(packed_matrix const& w) const {
    if (plain) {
        return "it stores numbers, no codes";
    }
    return obstacle_of != nullptr ? obstacle_of(w) : "it is not written";
}

DETENT_INLINE index_t ggml_type::bytes(std::span<index_t const> shape, std::string const& subject) const {
    index_t const cols = shape.empty() ? 1 : shape.back();
    if (cols % block_codes != 0) {
        throw error(subject, "a row of " + std::to_string(cols) + " numbers is not of whole blocks of " +
                                 std::string(name) + ", which have " + std::to_string(block_codes));
    }
    std::vector<index_t> blocks(shape.begin(), shape.end());
    if (!blocks.empty()) {
        blocks.back() /= block_codes;
    }
    blocks.push_back(block_bytes);
    return byte_size(dtype::u8, blocks, subject);
}

DETENT_INLINE void set_scale_unit(packed_matrix& w, float unit) {
    expect_valid(w.scales.format == scale_format(scale_kind::ue4m3), "scales", "are not E4M3 in units of 1");
    scale_format const format{scale_kind::ue4m3, unit};
    expect_unit(format);
    w.scales.format = format;
    for (float& s : w.scales.scales) {
        s *= unit;
    }
}

DETENT_INLINE void copy_to_floats(packed_matrix const& w, index_t first, index_t last, float* out) {
    DETENT_EXPECTS(w.map.empty() && w.weak.empty());
    index_t const cols = w.shape().cols;
    std::vector<code> codes(static_cast<std::size_t>(cols));
    for (index_t row = first; row < last; ++row, out += cols) {
        with_bits(w.bits, [&]<int Bits> {
            linear_packing<Bits>::unpack(w.codes.data() + row * w.row_bytes(), cols, codes.data());
        });
        for (index_t begin = 0; begin < cols; begin += w.tile.cols) {
            tile_scale const s = w.scales.at(row / w.tile.rows, begin / w.tile.cols);
            for (index_t k = begin; k < std::min(begin + w.tile.cols, cols); ++k) {
                out[k] = (w.table[codes[static_cast<std::size_t>(k)]] - s.zero) * s.scale;
            }
        }
    }
}

} // namespace detent::inline DETENT_ABI::io
