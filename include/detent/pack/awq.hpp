// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>

#include "detent/pack/packing.hpp"
#include "detent/simd/nibbles.hpp"
#include "detent/simd/transpose.hpp"

namespace detent::inline DETENT_ABI {

/// The bytes of `qweight` in files of AWQ's version "gemm": little-endian words of 32 bits (in, out / 8), each of one
/// input and eight outputs in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits on. Where the outputs do not fill
/// the last word of an input, zeros do.
struct awq_packing : packed_by_blocks<awq_packing> {
    static constexpr int bits = 4;

    /// Nibble i of a word is that of output `order[i]` of its eight.
    static constexpr index_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

    static constexpr index_t bytes(extents shape) { return shape.cols * row_bytes(shape); }

    static code get(std::uint8_t const* bytes, extents shape, index_t row, index_t col) {
        index_t const nibble = std::ranges::find(order, row % 8) - order;
        std::uint8_t const byte = bytes[col * row_bytes(shape) + row / 8 * 4 + nibble / 2];
        return static_cast<code>(byte >> (nibble % 2 * 4) & 15);
    }

    static void to_linear(std::uint8_t const* bytes, extents shape, code_block const& block, std::uint8_t* linear,
                          index_t stride, simd::destination) {
        pair_bytes even;
        pair_bytes odd;
        std::uint8_t none[chunk]; // what becomes of rows that only fill up a word
        for (index_t col = 0; col < block.shape.cols; col += 2 * chunk) {
            index_t const n = std::min(2 * chunk, block.shape.cols - col);
            index_t const pairs = pairs_of(block.shape);
            std::uint8_t const* const words = bytes + place(shape, block, col);
            index_t const two_rows = 2 * row_bytes(shape);
            simd::transpose<std::uint8_t>(words, two_rows, {ceil_div(n, 2), pairs}, even[0], chunk,
                                          simd::destination::cache);
            simd::transpose<std::uint8_t>(words + row_bytes(shape), two_rows, {n / 2, pairs}, odd[0], chunk,
                                          simd::destination::cache);
            for (index_t p = 0; p < pairs; ++p) {
                if (n % 2 != 0) {
                    odd[p][n / 2] = 0;
                }
                auto const row = [&](index_t r) { return r < block.shape.rows ? linear + r * stride + col / 2 : none; };
                simd::swap_nibbles(even[p], odd[p], ceil_div(n, 2), row(first_of(p)), row(second_of(p)));
            }
        }
    }

    static void from_linear(std::uint8_t const* linear, index_t stride, code_block const& block, std::uint8_t* bytes,
                            extents shape) {
        pair_bytes even;
        pair_bytes odd;
        static constexpr std::uint8_t zeros[chunk] = {};
        for (index_t col = 0; col < block.shape.cols; col += 2 * chunk) {
            index_t const n = std::min(2 * chunk, block.shape.cols - col);
            index_t const pairs = pairs_of(block.shape);
            for (index_t p = 0; p < pairs; ++p) {
                auto const row = [&](index_t r) {
                    return r < block.shape.rows ? linear + r * stride + col / 2 : zeros;
                };
                simd::swap_nibbles(row(first_of(p)), row(second_of(p)), ceil_div(n, 2), even[p], odd[p]);
            }
            std::uint8_t* const words = bytes + place(shape, block, col);
            index_t const two_rows = 2 * row_bytes(shape);
            simd::transpose<std::uint8_t>(even[0], chunk, {pairs, ceil_div(n, 2)}, words, two_rows,
                                          simd::destination::memory);
            simd::transpose<std::uint8_t>(odd[0], chunk, {pairs, n / 2}, words + row_bytes(shape), two_rows,
                                          simd::destination::memory);
        }
    }

private:
    /// The bytes of a row, of two inputs each, that are worked on at a time: a cache line.
    static constexpr index_t chunk = 64;

    /// Byte j of row p has the codes that two outputs, which share a byte of a word, have for the j-th input of the
    /// even or of the odd ones.
    using pair_bytes = std::uint8_t[code_block::row_step / 2][chunk];

    static constexpr index_t row_bytes(extents shape) { return ceil_div(shape.rows, 8) * 4; }
    static constexpr index_t pairs_of(extents block) { return ceil_div(block.rows, 8) * 4; }
    static constexpr index_t first_of(index_t pair) { return pair / 4 * 8 + order[pair % 4 * 2]; }
    static constexpr index_t second_of(index_t pair) { return pair / 4 * 8 + order[pair % 4 * 2 + 1]; }

    /// Where the word of input `col` of a block and of its first outputs is.
    static constexpr index_t place(extents shape, code_block const& block, index_t col) {
        return (block.col + col) * row_bytes(shape) + block.row / 8 * 4;
    }
};

} // namespace detent::inline DETENT_ABI
