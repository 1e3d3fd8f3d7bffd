// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/core/error.hpp"
#include "detent/core/index.hpp"
#include "detent/pack/code_block.hpp"
#include "detent/simd/transpose.hpp"
#include "detent/simd/unpack.hpp"

namespace detent::inline DETENT_ABI {

/// Code `i` of a row in a linear packing of `bits` bits, see `linear_packing`.
constexpr code linear_code(int bits, std::uint8_t const* row, index_t i) {
    index_t const position = i * bits;
    unsigned word = row[position / 8];
    if (position % 8 + bits > 8) {
        word |= static_cast<unsigned>(row[position / 8 + 1]) << 8;
    }
    return static_cast<code>((word >> (position % 8)) & ((1U << bits) - 1));
}

/// Stores code i of a row in bits [i * bits, (i + 1) * bits) of a little-endian bit stream; each row starts on a byte.
/// It is what kernels read and what every other packing is converted to and from. A matrix (out, in) is its rows one
/// after the other. `get` is the slow and obvious definition.
template <int Bits>
requires(Bits >= 1 && Bits <= 8) struct linear_packing {
    static constexpr int bits = Bits;

    /// The bytes of a row of `n` codes.
    static constexpr index_t row_bytes(index_t n) { return ceil_div(n * Bits, 8); }

    /// Writes `n` codes (each below 2^Bits) to `row_bytes(n)` bytes.
    static void pack(code const* codes, index_t n, std::uint8_t* bytes) {
        for (index_t i = 0; i < n; i += 8, bytes += Bits) { // eight codes fill Bits whole bytes
            std::uint64_t word = 0;
            auto const put = [&](index_t count) {
                std::memcpy(&word, codes + i, static_cast<std::size_t>(count));
                word = simd::squeeze<Bits>(word);
                std::memcpy(bytes, &word, static_cast<std::size_t>(row_bytes(count)));
            };
            i + 8 <= n ? put(8) : put(n - i);
        }
    }

    /// Reads `n` codes from `row_bytes(n)` bytes.
    static void unpack(std::uint8_t const* bytes, index_t n, code* codes) {
        index_t const eights = row_bytes(n) < 8 ? 0 : (row_bytes(n) - 8) / Bits + 1; // from eight bytes each
        simd::unpack<Bits>(bytes, 8 * eights, codes);
        for (index_t i = 8 * eights; i < n; ++i) {
            codes[i] = get(bytes, i);
        }
    }

    /// Code `i` of a row.
    static constexpr code get(std::uint8_t const* row, index_t i) { return linear_code(Bits, row, i); }

    /// The bytes of a matrix. @throws error when its shape is negative.
    static constexpr index_t bytes(extents shape) {
        expect_shape(shape);
        return shape.rows * row_bytes(shape.cols);
    }

    /// Writes the codes of a matrix, row by row, each below 2^Bits, to `bytes(shape)` bytes.
    static void pack(code const* codes, extents shape, std::uint8_t* bytes) {
        for (index_t r = 0; r < shape.rows; ++r) {
            pack(codes + r * shape.cols, shape.cols, bytes + r * row_bytes(shape.cols));
        }
    }

    /// Reads the codes of a matrix, row by row, from `bytes(shape)` bytes.
    static void unpack(std::uint8_t const* bytes, extents shape, code* codes) {
        for (index_t r = 0; r < shape.rows; ++r) {
            unpack(bytes + r * row_bytes(shape.cols), shape.cols, codes + r * shape.cols);
        }
    }

    /// The code at `row` and `col` of a matrix.
    static constexpr code get(std::uint8_t const* bytes, extents shape, index_t row, index_t col) {
        return get(bytes + row * row_bytes(shape.cols), col);
    }

    /// Copies a block's rows from a matrix; row r goes to `linear + r * stride`.
    static void to_linear(std::uint8_t const* bytes, extents shape, code_block const& block, std::uint8_t* linear,
                          index_t stride, simd::destination) {
        copy(bytes + place(shape, block), row_bytes(shape.cols), block.shape, linear, stride);
    }

    /// Copies a block's rows, of which row r is at `linear + r * stride`, into a matrix.
    static void from_linear(std::uint8_t const* linear, index_t stride, code_block const& block, std::uint8_t* bytes,
                            extents shape) {
        copy(linear, stride, block.shape, bytes + place(shape, block), row_bytes(shape.cols));
    }

    /// Where the first byte of a block of a matrix is.
    static constexpr index_t place(extents shape, code_block const& block) {
        return block.row * row_bytes(shape.cols) + block.col * Bits / 8;
    }

private:
    static void copy(std::uint8_t const* from, index_t from_stride, extents shape, std::uint8_t* to,
                     index_t to_stride) {
        for (index_t r = 0; r < shape.rows; ++r) {
            std::uint8_t* const row = to + r * to_stride;
            std::memcpy(row, from + r * from_stride, static_cast<std::size_t>(row_bytes(shape.cols)));
            if (index_t const rest = shape.cols * Bits % 8; rest > 0) { // what follows the last code is 0
                row[row_bytes(shape.cols) - 1] &= static_cast<std::uint8_t>((1 << rest) - 1);
            }
        }
    }
};

/// Calls `f.template operator()<Bits>()` for a number of bits known only at run time. @throws error when it is not 1 to
/// 8.
template <class F> decltype(auto) with_bits(int bits, F&& f) {
    expect_option(bits >= 1 && bits <= 8, "code", "number of bits", bits, "from 1 to 8");
    switch (bits) {
    case 1:
        return f.template operator()<1>();
    case 2:
        return f.template operator()<2>();
    case 3:
        return f.template operator()<3>();
    case 4:
        return f.template operator()<4>();
    case 5:
        return f.template operator()<5>();
    case 6:
        return f.template operator()<6>();
    case 7:
        return f.template operator()<7>();
    default:
        return f.template operator()<8>();
    }
}

} // namespace detent::inline DETENT_ABI
