// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/pack/packing.hpp"
#include "detent/simd/transpose.hpp"

namespace detent::inline DETENT_ABI {

/// The bytes of `qweight` in files of GPTQ and OWQ: little-endian words of 32 bits (in * Bits / 32, out). Down each
/// column goes the bit stream of one output's inputs, so that the words are the transpose of those of a row in linear
/// packing. Files have 2, 3, 4 and 8 bits. Where the inputs do not fill the last words, zeros do.
template <int Bits>
requires(Bits >= 1 && Bits <= 8) struct gptq_packing : packed_by_blocks<gptq_packing<Bits>> {
    static constexpr int bits = Bits;

    /// The number of rows of words for this many inputs.
    static constexpr index_t word_rows(index_t in) { return ceil_div(in * Bits, 32); }

    static constexpr index_t bytes(extents shape) {
        expect_shape(shape);
        return word_rows(shape.cols) * shape.rows * 4;
    }

    static code get(std::uint8_t const* bytes, extents shape, index_t row, index_t col) {
        unsigned value = 0;
        for (int b = 0; b < Bits; ++b) {
            index_t const bit = col * Bits + b;
            std::uint8_t const byte = bytes[(bit / 32 * shape.rows + row) * 4 + bit % 32 / 8];
            value |= (byte >> (bit % 8) & 1U) << b;
        }
        return static_cast<code>(value);
    }

    static void to_linear(std::uint8_t const* bytes, extents shape, code_block const& block, std::uint8_t* linear,
                          index_t stride, simd::destination where) {
        auto const [rows, cols] = block.shape;
        std::uint8_t const* const words = bytes + place(shape, block);
        index_t const whole = cols * Bits / 32;
        simd::transpose<std::uint32_t>(words, shape.rows * 4, {whole, rows}, linear, stride, where);
        if (index_t const rest = cols * Bits % 32; rest > 0) {
            for (index_t r = 0; r < rows; ++r) {
                std::uint32_t word;
                std::memcpy(&word, words + (whole * shape.rows + r) * 4, 4);
                word &= (1U << rest) - 1;
                std::memcpy(linear + r * stride + whole * 4, &word, static_cast<std::size_t>(ceil_div(rest, 8)));
            }
        }
    }

    static void from_linear(std::uint8_t const* linear, index_t stride, code_block const& block, std::uint8_t* bytes,
                            extents shape) {
        auto const [rows, cols] = block.shape;
        std::uint8_t* const words = bytes + place(shape, block);
        index_t const whole = cols * Bits / 32;
        simd::transpose<std::uint32_t>(linear, stride, {rows, whole}, words, shape.rows * 4, simd::destination::memory);
        if (index_t const rest = cols * Bits % 32; rest > 0) {
            for (index_t r = 0; r < rows; ++r) {
                std::uint32_t word = 0;
                std::memcpy(&word, linear + r * stride + whole * 4, static_cast<std::size_t>(ceil_div(rest, 8)));
                word &= (1U << rest) - 1;
                std::memcpy(words + (whole * shape.rows + r) * 4, &word, 4);
            }
        }
    }

private:
    /// Where the first word of a block is.
    static constexpr index_t place(extents shape, code_block const& block) {
        return (block.col * Bits / 32 * shape.rows + block.row) * 4;
    }
};

} // namespace detent::inline DETENT_ABI
