// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "detent/core/needs_exceptions.hpp"
#include "detent/core/same_bits.hpp"
#include "detent/grid/grid.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/matrix/packed_matrix.hpp"

// What several layouts of packed matrices need to write or read one.

namespace detent::inline DETENT_ABI::io {

/// The bytes of a vector of trivially copyable elements.
template <class T> std::vector<std::uint8_t> bytes_of(std::vector<T> const& values) {
    std::vector<std::uint8_t> bytes(values.size() * sizeof(T));
    if (!bytes.empty()) {
        std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    return bytes;
}

/// The scales as `format` stores them.
std::vector<std::uint8_t> scale_bytes(std::span<float const> scales, scale_format format);

/// The element type of scales stored in `format`.
constexpr dtype dtype_of(scale_format format) {
    switch (format.kind) {
    case scale_kind::f16:
        return dtype::f16;
    case scale_kind::bf16:
        return dtype::bf16;
    case scale_kind::f32:
        break;
    case scale_kind::e8m0:
        return dtype::f8_e8m0;
    case scale_kind::ue4m3:
        return dtype::f8_e4m3;
    }
    return dtype::f32;
}

/// The format of floats of this type: F16 and BF16 as they are, all others as F32.
float_format float_format_of(dtype type);

/// The numbers that the codes of a grid stand for.
template <Grid G> std::vector<float> code_numbers(G const& grid) {
    auto const table = table_of(grid);
    return {table.begin(), table.end()};
}

/// The zero point that the symmetric integer grids have in GPTQ's layout, or 0 for the grids with a zero point; -1 when
/// the numbers are no consecutive integers from there on.
int integer_offset(std::span<float const> table);

/// A matrix of the integers from `lowest` on, still without codes and scales.
packed_matrix integer_matrix(int bits, extents shape, int lowest = 0);

/// Whether the codes of a matrix of integers stand for those from -2^(bits - 1) on, in every tile.
bool is_symmetric(packed_matrix const& w);

/// The code that stands for 0 in a tile of a matrix of integers of one row each.
code zero_code(packed_matrix const& w, index_t row, index_t group);

/// Whether the codes are those of E2M1 or of OCP's E4M3.
bool is_fp4(packed_matrix const& w);
bool is_fp8(packed_matrix const& w);

/// The codes of a linear packing of `shape` with stored column k at column `position[k]`.
buffer move_columns(int bits, extents shape, std::uint8_t const* bytes, std::vector<std::int32_t> const& position);

/// The input that stored column `k` meets, for a map that is a permutation or empty.
index_t natural(input_map const& map, index_t k);

/// The codes as GPTQ's and OWQ's `qweight` (in * bits / 32, out), inputs in their natural order.
std::vector<std::uint8_t> code_words(packed_matrix const& w);

/// The bytes of codes in linear packing.
std::vector<std::uint8_t> linear_bytes(int bits, extents shape, std::vector<code> const& codes);

/// Codes of `shape` from linear packing.
std::vector<code> linear_codes(int bits, extents shape, std::span<std::uint8_t const> bytes);

/// A copy.
buffer buffer_of(std::span<std::uint8_t const> bytes);

/// Whether all zero points are integers within the codes, as products of rounded inputs take them to be. Those of
/// matrices that were read from files of ggml may be any numbers, which only products of floats and detent's own layout
/// take.
bool has_integer_zeros(packed_matrix const& w);

/// Why no layout of integers can hold the grid or the tiles of `w`; empty when one can.
std::string integer_obstacle(packed_matrix const& w);

/// The group of each input, for a map that is a permutation or empty: what files call `g_idx`.
std::vector<std::int32_t> groups_of_inputs(packed_matrix const& w);

/// The inputs in the order of their groups.
std::vector<std::int32_t> order_of_groups(std::vector<std::int32_t> const& group_of);

/// The number of inputs in a group where that is the same for all but a smaller last one, else 0. `order` is that of
/// the groups, of which there are at most `groups`.
index_t group_width(std::vector<std::int32_t> const& group_of, std::vector<std::int32_t> const& order, index_t groups);

/// Moves the codes of `w`, whose inputs are in their natural order, to `order`, and maps inputs accordingly.
void store_in_order(packed_matrix& w, std::vector<std::int32_t> const& order);

/// The matrix of some rows of `w`. @throws error where there is no such row, or rows that share scales are parted.
packed_matrix take_rows(packed_matrix const& w, std::vector<index_t> const& rows);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/packed_parts.ipp" // IWYU pragma: export
#endif
