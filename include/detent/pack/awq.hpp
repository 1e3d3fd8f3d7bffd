// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

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

    static constexpr index_t bytes(extents shape) {
        expect_shape(shape);
        return shape.cols * row_bytes(shape);
    }

    static code get(std::uint8_t const* bytes, extents shape, index_t row, index_t col) {
        index_t const nibble = std::find(order, order + 8, row % 8) - order;
        std::uint8_t const byte = bytes[col * row_bytes(shape) + row / 8 * 4 + nibble / 2];
        return static_cast<code>(byte >> (nibble % 2 * 4) & 15);
    }

    static void to_linear(std::uint8_t const* bytes, extents shape, code_block const& block, std::uint8_t* linear,
                          index_t stride, simd::destination where) {
        for_each_piece(block.shape, [&](index_t row, index_t col, extents piece) {
            std::uint8_t const* const words = bytes + place(shape, block, row, col);
            rows_of_words(words, row_bytes(shape), piece, linear + row * stride + col / 2, stride, where);
        });
    }

    static void from_linear(std::uint8_t const* linear, index_t stride, code_block const& block, std::uint8_t* bytes,
                            extents shape) {
        for_each_piece(block.shape, [&](index_t row, index_t col, extents piece) {
            std::uint8_t* const words = bytes + place(shape, block, row, col);
            words_of_rows(linear + row * stride + col / 2, stride, piece, words, row_bytes(shape));
        });
    }

private:
    /// A piece is what is worked on at a time: codes of this many outputs and inputs, a few cache lines on both sides.
    static constexpr extents piece_shape{128, 512};

    /// Byte j of row p has the codes that two outputs, which share a byte of a word, have for the j-th input of the
    /// even or of the odd ones. The rows lie apart so that they do not all compete for the same places in the cache.
    struct pair_bytes {
        alignas(64) std::uint8_t rows[piece_shape.rows / 2][piece_shape.cols / 2 + 64];

        static constexpr index_t stride = piece_shape.cols / 2 + 64;
    };

    static constexpr index_t near_stride = piece_shape.rows / 2;

    static constexpr index_t row_bytes(extents shape) { return ceil_div(shape.rows, 8) * 4; }
    static constexpr index_t first_of(index_t pair) { return pair / 4 * 8 + order[pair % 4 * 2]; }
    static constexpr index_t second_of(index_t pair) { return pair / 4 * 8 + order[pair % 4 * 2 + 1]; }

    /// Where the word of an input and of eight outputs of a block is.
    static constexpr index_t place(extents shape, code_block const& block, index_t row, index_t col) {
        return (block.col + col) * row_bytes(shape) + (block.row + row) / 8 * 4;
    }

    /// Calls `f(row, col, extents)` for the pieces of a block, side by side in the words.
    template <class F> static void for_each_piece(extents block, F const& f) {
        auto const [rows, cols] = piece_shape;
        for (index_t col = 0; col < block.cols; col += cols) {
            for (index_t row = 0; row < block.rows; row += rows) {
                f(row, col, extents{std::min(rows, block.rows - row), std::min(cols, block.cols - col)});
            }
        }
    }

    static void rows_of_words(std::uint8_t const* words, index_t word_stride, extents piece, std::uint8_t* linear,
                              index_t stride, simd::destination where) {
        pair_bytes even;
        pair_bytes odd;
        std::uint8_t none[piece_shape.cols / 2]; // what becomes of rows that only fill up a word
        index_t const pairs = ceil_div(piece.rows, 8) * 4;
        index_t const n = ceil_div(piece.cols, 2);
        for (index_t k = 0; k < n; k += 64) {
            // First the lines, whose distance is often a power of two, move to where they do not evict one another.
            alignas(64) std::uint8_t near[128 * (piece_shape.rows / 2)];
            index_t const inputs = std::min(index_t{128}, piece.cols - 2 * k);
            for (index_t i = 0; i < inputs; ++i) {
                std::uint8_t const* const word = words + (2 * k + i) * word_stride;
                __builtin_prefetch(word + 24 * word_stride); // may be past the end: no harm is done
                pairs == near_stride ? std::memcpy(near + i * near_stride, word, near_stride) // a known size
                                     : std::memcpy(near + i * near_stride, word, static_cast<std::size_t>(pairs));
            }
            simd::transpose<std::uint8_t>(near, 2 * near_stride, {ceil_div(inputs, 2), pairs}, even.rows[0] + k,
                                          even.stride, simd::destination::cache);
            simd::transpose<std::uint8_t>(near + near_stride, 2 * near_stride, {inputs / 2, pairs}, odd.rows[0] + k,
                                          odd.stride, simd::destination::cache);
        }
        for (index_t p = 0; p < pairs; ++p) {
            if (piece.cols % 2 != 0) {
                odd.rows[p][n - 1] = 0;
            }
            auto const row = [&](index_t r) { return r < piece.rows ? linear + r * stride : none; };
            simd::swap_nibbles(even.rows[p], odd.rows[p], n, row(first_of(p)), row(second_of(p)), where);
        }
    }

    static void words_of_rows(std::uint8_t const* linear, index_t stride, extents piece, std::uint8_t* words,
                              index_t word_stride) {
        static constexpr std::uint8_t zeros[piece_shape.cols / 2] = {};
        pair_bytes even;
        pair_bytes odd;
        index_t const pairs = ceil_div(piece.rows, 8) * 4;
        index_t const n = ceil_div(piece.cols, 2);
        for (index_t p = 0; p < pairs; ++p) {
            auto const row = [&](index_t r) { return r < piece.rows ? linear + r * stride : zeros; };
            for (index_t line = 0; line < n; line += 64) { // of the next pairs
                __builtin_prefetch(linear + (first_of(p) + 8) * stride + line);
                __builtin_prefetch(linear + (second_of(p) + 8) * stride + line);
            }
            simd::swap_nibbles(row(first_of(p)), row(second_of(p)), n, even.rows[p], odd.rows[p],
                               simd::destination::cache);
        }
        simd::transpose<std::uint8_t>(even.rows[0], even.stride, {pairs, n}, words, 2 * word_stride,
                                      simd::destination::memory);
        simd::transpose<std::uint8_t>(odd.rows[0], odd.stride, {pairs, piece.cols / 2}, words + word_stride,
                                      2 * word_stride, simd::destination::memory);
    }
};

} // namespace detent::inline DETENT_ABI
