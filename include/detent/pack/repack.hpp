// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <cstdint>

#include "detent/pack/packing.hpp"

namespace detent::inline DETENT_ABI {

/// Turns the `From::bytes(shape)` bytes at `from` into the `To::bytes(shape)` bytes of another packing of the same
/// codes (out, in). Memory at any alignment will do; the two do not overlap. It needs memory for one `code_block`, and
/// none when either packing is linear. Throws `error` where `From` or `To` cannot hold the shape, before it writes
/// anything.
template <Packing From, Packing To>
requires(From::bits == To::bits) void repack(std::uint8_t const* from, extents shape, std::uint8_t* to) {
    constexpr int bits = From::bits;
    using linear = linear_packing<bits>;
    static_cast<void>(From::bytes(shape)); // throws where the shape is wrong
    static_cast<void>(To::bytes(shape));
    index_t const whole_rows = ceil_div(shape.cols + 1, code_block::col_step) * code_block::col_step;
    index_t const stride = linear::row_bytes(shape.cols);
    if constexpr (std::same_as<From, linear>) {
        for_each_code_block(shape, whole_rows, [&](code_block const& block) {
            To::from_linear(from + linear::place(shape, block), stride, block, to, shape);
        });
    } else if constexpr (std::same_as<To, linear>) {
        for_each_code_block(shape, whole_rows, [&](code_block const& block) {
            From::to_linear(from, shape, block, to + linear::place(shape, block), stride, simd::destination::memory);
        });
    } else {
        linear_scratch<bits> scratch;
        for_each_code_block(shape, scratch.cols, [&](code_block const& block) {
            From::to_linear(from, shape, block, scratch.row(0), scratch.stride, simd::destination::cache);
            To::from_linear(scratch.row(0), scratch.stride, block, to, shape);
        });
    }
    simd::end_stream();
}

} // namespace detent::inline DETENT_ABI
