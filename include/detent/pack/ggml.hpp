// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/pack/packing.hpp"
#include "detent/simd/nibbles.hpp"

namespace detent::inline DETENT_ABI {

/// How many codes a block of ggml has that stores them in this number of bits.
constexpr index_t ggml_block_codes(int bits) { return bits == 1 ? 128 : bits == 2 ? 256 : 32; }

/// The codes in blocks of ggml, row by row, without what else is in the blocks. Blocks begin `Stride` bytes apart, so
/// that a stride of the whole block and a pointer to the codes of the first one reach the codes in a file:
///
/// | Bits | codes of a block | order | types, with the place of the codes and the stride |
/// |---|---|---|---|
/// | 1 | 128 | bit i is code i | Q1_0 2, 18 |
/// | 2 | 256 | code 128 h + 32 t + l is in bits 2 t and 2 t + 1 of byte 32 h + l | TQ2_0 0, 66; Q2_K 16, 84 |
/// | 4 | 32 | byte j has code j below and code j + 16 above | Q4_0, IQ4_NL 2, 18; Q4_1 4, 20; MXFP4 1, 17 |
/// | 5 | 32 | bit i of the first 4 bytes is the highest of code i, then the other bits as for 4 | Q5_0 2, 22; Q5_1 4,
/// 24 | | 8 | 32 | byte i is code i | Q8_0 2, 34 |
///
/// A row must be of whole blocks, as in ggml; else `bytes`, `pack`, `unpack` and `repack` throw `error`. What is
/// between the codes of two blocks is left as it is, and so nothing may be behind the last.
template <int Bits, index_t Stride = ggml_block_codes(Bits) * Bits / 8>
requires((Bits == 1 || Bits == 2 || Bits == 4 || Bits == 5 || Bits == 8) &&
         Stride >= ggml_block_codes(Bits) * Bits / 8) struct ggml_packing
    : packed_by_blocks<ggml_packing<Bits, Stride>> {
    static constexpr int bits = Bits;
    static constexpr index_t block_codes = ggml_block_codes(Bits);
    static constexpr index_t block_bytes = block_codes * Bits / 8;

    /// From the first code to the end of the last.
    static index_t bytes(extents shape) {
        expect_shape(shape);
        if (shape.cols % block_codes != 0) {
            raise(error("a row of " + std::to_string(shape.cols) + " codes of " + std::to_string(Bits) + " bits",
                        "is not of whole ggml blocks, which have " + std::to_string(block_codes)));
        }
        return shape.size() == 0 ? 0 : (shape.size() / block_codes - 1) * Stride + block_bytes;
    }

    static code get(std::uint8_t const* bytes, extents shape, index_t row, index_t col) {
        std::uint8_t const* const block = bytes + (row * shape.cols + col) / block_codes * Stride;
        index_t const i = col % block_codes;
        if constexpr (Bits == 1) {
            return block[i / 8] >> (i % 8) & 1;
        } else if constexpr (Bits == 2) {
            return block[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        } else if constexpr (Bits == 4) {
            return block[i % 16] >> (i / 16 * 4) & 15;
        } else if constexpr (Bits == 5) {
            return static_cast<code>((block[4 + i % 16] >> (i / 16 * 4) & 15) | (block[i / 8] >> (i % 8) & 1) << 4);
        } else {
            return block[i];
        }
    }

    static void to_linear(std::uint8_t const* bytes, extents shape, code_block const& block, std::uint8_t* linear,
                          index_t stride, simd::destination) {
        for (index_t r = 0; r < block.shape.rows; ++r) {
            row_to_linear(bytes + place(shape, block, r), block.shape.cols / block_codes, linear + r * stride);
        }
    }

    static void from_linear(std::uint8_t const* linear, index_t stride, code_block const& block, std::uint8_t* bytes,
                            extents shape) {
        for (index_t r = 0; r < block.shape.rows; ++r) {
            row_from_linear(linear + r * stride, block.shape.cols / block_codes, bytes + place(shape, block, r));
        }
    }

private:
    static constexpr index_t place(extents shape, code_block const& block, index_t r) {
        return ((block.row + r) * shape.cols + block.col) / block_codes * Stride;
    }

    static void row_to_linear(std::uint8_t const* from, index_t blocks, std::uint8_t* to) {
        index_t i = 0;
        if constexpr (Bits == 4) { // two at a time
            for (; i + 2 <= blocks; i += 2, from += 2 * Stride, to += 2 * block_bytes) {
                simd::join_halves(from, from + Stride, to);
            }
        }
        for (; i < blocks; ++i, from += Stride, to += block_bytes) {
            if constexpr (Bits == 2) {
                quarters_to_linear(from, to);
                quarters_to_linear(from + 32, to + 32);
            } else if constexpr (Bits == 4) {
                std::uint8_t two_blocks[array_size(2 * block_bytes)];
                simd::join_halves(from, from, two_blocks);
                std::memcpy(to, two_blocks, block_bytes);
            } else if constexpr (Bits == 5) {
                fives_to_linear(from, to);
            } else {
                std::memcpy(to, from, block_bytes);
            }
        }
    }

    static void row_from_linear(std::uint8_t const* from, index_t blocks, std::uint8_t* to) {
        index_t i = 0;
        if constexpr (Bits == 4) {
            for (; i + 2 <= blocks; i += 2, from += 2 * block_bytes, to += 2 * Stride) {
                simd::split_halves(from, to, to + Stride);
            }
        }
        for (; i < blocks; ++i, from += block_bytes, to += Stride) {
            if constexpr (Bits == 2) {
                quarters_from_linear(from, to);
                quarters_from_linear(from + 32, to + 32);
            } else if constexpr (Bits == 4) {
                std::uint8_t two_blocks[array_size(2 * block_bytes)] = {};
                std::memcpy(two_blocks, from, block_bytes);
                simd::split_halves(two_blocks, two_blocks, two_blocks + block_bytes);
                std::memcpy(to, two_blocks, block_bytes);
            } else if constexpr (Bits == 5) {
                fives_from_linear(from, to);
            } else {
                std::memcpy(to, from, block_bytes);
            }
        }
    }

    static void fives_to_linear(std::uint8_t const* from, std::uint8_t* to) {
        code codes[array_size(block_codes)];
        std::uint32_t highest = 0;
        std::memcpy(&highest, from, 4);
        for (index_t k = 0; k < 16; ++k) {
            codes[k] = static_cast<code>((from[4 + k] & 15) | (highest >> k & 1) << 4);
            codes[k + 16] = static_cast<code>(from[4 + k] >> 4 | (highest >> (k + 16) & 1) << 4);
        }
        linear_packing<5>::pack(codes, block_codes, to);
    }

    static void fives_from_linear(std::uint8_t const* from, std::uint8_t* to) {
        code codes[array_size(block_codes)];
        linear_packing<5>::unpack(from, block_codes, codes);
        std::uint32_t highest = 0;
        for (index_t k = 0; k < block_codes; ++k) {
            highest |= (codes[k] >> 4 & 1U) << k;
        }
        std::memcpy(to, &highest, 4);
        for (index_t k = 0; k < 16; ++k) {
            to[4 + k] = static_cast<std::uint8_t>((codes[k] & 15) | codes[k + 16] << 4);
        }
    }

    /// Bits 0 and 1 of each byte of a word.
    static constexpr std::uint32_t lowest = 0x03030303;

    /// 128 codes of 2 bits: four quarters of 32, which share bytes. A word has four consecutive codes of each quarter,
    /// in a byte each; they become one byte.
    static void quarters_to_linear(std::uint8_t const* from, std::uint8_t* to) {
        for (index_t k = 0; k < 8; ++k) {
            std::uint32_t word;
            std::memcpy(&word, from + 4 * k, 4);
            for (index_t quarter = 0; quarter < 4; ++quarter) {
                std::uint32_t const codes = word >> (2 * quarter) & lowest;
                to[8 * quarter + k] = static_cast<std::uint8_t>(codes | codes >> 6 | codes >> 12 | codes >> 18);
            }
        }
    }

    /// Undoes `quarters_to_linear`.
    static void quarters_from_linear(std::uint8_t const* from, std::uint8_t* to) {
        for (index_t k = 0; k < 8; ++k) {
            std::uint32_t word = 0;
            for (index_t quarter = 0; quarter < 4; ++quarter) {
                std::uint32_t const codes = from[8 * quarter + k];
                word |= ((codes | codes << 6 | codes << 12 | codes << 18) & lowest) << (2 * quarter);
            }
            std::memcpy(to + 4 * k, &word, 4);
        }
    }
};

} // namespace detent::inline DETENT_ABI
