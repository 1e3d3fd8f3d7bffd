// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// How a `kv_store` holds numbers: as floats of 32 or 16 bits, or as codes of a grid in 8 or 4 bits each.
enum class kv_numbers { f32, f16, bf16, bytes, nibbles };

/// A borrowed `kv_store` without Eigen or ownership: all a kernel sees. The row of token t and head h is in slot
/// `t % slots` of the head, and those of a head lie one after the other. Numbers of a row come in groups that share a
/// scale, each padded to whole steps of a kernel; padding is made of numbers of the grid.
struct kv_view {
    kv_numbers numbers = kv_numbers::f32;
    std::uint8_t const* rows = nullptr; ///< (head, slot, row)
    index_t row_bytes = 0;
    index_t slots = 0;            ///< of a head
    index_t head_dim = 0;         ///< numbers of a row
    index_t width = 0;            ///< consecutive numbers that share a scale; of the last group perhaps fewer
    index_t padded_width = 0;     ///< what a group takes
    index_t groups = 1;           ///< of a row
    half const* scales = nullptr; ///< (head, slot, group); null for numbers that are no codes
    half const* zeros = nullptr;  ///< likewise; null without zero points
    /// (head, center slot, groups * padded_width), which are added to the rows of a block of tokens; null for none.
    /// Those of block b of `centered_tokens` tokens are in slot `b % center_slots`.
    bfloat16 const* centers = nullptr;
    index_t center_slots = 0;
    int bits = 0;                 ///< of a code
    float const* table = nullptr; ///< the number of each of the 2^bits codes
    bool consecutive = false;     ///< table[c] is table[0] + c

    static constexpr index_t centered_tokens = 32; ///< of a block that shares centers

    /// The centers of a token of `head`, of which there are some.
    bfloat16 const* centers_of(index_t head, index_t token) const {
        index_t const slot = token / centered_tokens % center_slots;
        return centers + (head * center_slots + slot) * groups * padded_width;
    }

    /// The bytes of the rows of `head`.
    std::uint8_t const* rows_of(index_t head) const { return rows + head * slots * row_bytes; }
};

/// What of a row a kernel can hold: numbers with their padding, and groups.
struct kv_limits {
    static constexpr index_t padded_row = 1024;
    static constexpr index_t groups = 64;
};

} // namespace detent::inline DETENT_ABI
