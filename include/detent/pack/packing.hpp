// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <cstdint>
#include <vector>

#include "detent/core/index.hpp"
#include "detent/pack/code_block.hpp"
#include "detent/pack/linear.hpp"
#include "detent/simd/transpose.hpp"

namespace detent::inline DETENT_ABI {

/// How a matrix of codes (out, in), each of `bits` bits, becomes bytes.
///
/// * `bytes(shape)`: their number. It throws `error` when the packing cannot hold such a matrix, and so do `pack` and
///   `unpack`.
/// * `pack(codes, shape, bytes)` and `unpack(bytes, shape, codes)`: codes are in rows one after the other, each below
///   2^bits.
/// * `get(bytes, shape, row, col)`: one code, the slow and obvious definition.
/// * `to_linear(bytes, shape, block, linear, stride, destination)`: reads a `code_block` as rows in linear packing, row
/// r of the block
///   at `linear + r * stride`; it writes the bytes of the block's columns and no others, zeros in the last bits.
/// * `from_linear(linear, stride, block, bytes, shape)`: writes a `code_block`, whatever bits follow the last code of a
///   row; where words are filled up with zeros it writes them too. Blocks share no bytes.
///
/// What the last two write other threads may read after `simd::end_stream()`, which `pack` and `repack` call.
///
/// Memory at any alignment will do, and what is read does not overlap what is written.
template <class P>
concept Packing = requires(std::uint8_t const* from, std::uint8_t* to, code const* codes, code* result, extents shape,
                           code_block const& block, index_t i) {
    requires P::bits >= 1 && P::bits <= 8;
    { P::bytes(shape) } -> std::same_as<index_t>;
    P::pack(codes, shape, to);
    P::unpack(from, shape, result);
    { P::get(from, shape, i, i) } -> std::same_as<code>;
    P::to_linear(from, shape, block, to, i, simd::destination::cache);
    P::from_linear(from, i, block, to, shape);
};

/// Rows of a `code_block` in linear packing, as they are on their way from one packing to another. Rows lie a cache
/// line further apart than they must, so that those of a full block do not all compete for the same places in the
/// cache.
template <int Bits> class linear_scratch {
public:
    static constexpr index_t cols = 512;
    static constexpr index_t stride = cols * Bits / 8 + 64;

    std::uint8_t* row(index_t r) { return bytes_.data() + r * stride; }

private:
    std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(code_block::row_step * stride);
};

/// `pack` and `unpack` of a packing `P`, by its `to_linear` and `from_linear`; `P` derives from it.
template <class P> struct packed_by_blocks {
    static void pack(code const* codes, extents shape, std::uint8_t* bytes) {
        static_cast<void>(P::bytes(shape)); // throws where the shape is wrong
        linear_scratch<P::bits> scratch;
        for_each_code_block(shape, scratch.cols, [&](code_block const& block) {
            for (index_t r = 0; r < block.shape.rows; ++r) {
                code const* const row = codes + (block.row + r) * shape.cols + block.col;
                linear_packing<P::bits>::pack(row, block.shape.cols, scratch.row(r));
            }
            P::from_linear(scratch.row(0), scratch.stride, block, bytes, shape);
        });
        simd::end_stream();
    }

    static void unpack(std::uint8_t const* bytes, extents shape, code* codes) {
        static_cast<void>(P::bytes(shape));
        linear_scratch<P::bits> scratch;
        for_each_code_block(shape, scratch.cols, [&](code_block const& block) {
            P::to_linear(bytes, shape, block, scratch.row(0), scratch.stride, simd::destination::cache);
            for (index_t r = 0; r < block.shape.rows; ++r) {
                code* const row = codes + (block.row + r) * shape.cols + block.col;
                linear_packing<P::bits>::unpack(scratch.row(r), block.shape.cols, row);
            }
        });
    }
};

} // namespace detent::inline DETENT_ABI
