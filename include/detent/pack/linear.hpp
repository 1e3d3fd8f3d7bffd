// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <cstring>

#include "detent/core/contract.hpp"
#include "detent/core/index.hpp"
#include "detent/simd/unpack.hpp"

namespace detent::inline DETENT_ABI {

/// Stores code i of a row in bits [i * bits, (i + 1) * bits) of a little-endian bit stream; each row starts on a byte.
/// This is the order of GPTQ's and most other file formats. `get` is the slow and obvious definition.
template <int Bits>
    requires(Bits >= 1 && Bits <= 8)
struct linear_packing {
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
    static constexpr code get(std::uint8_t const* row, index_t i) {
        index_t const position = i * Bits;
        unsigned word = row[position / 8];
        if (position % 8 + Bits > 8) {
            word |= static_cast<unsigned>(row[position / 8 + 1]) << 8;
        }
        return static_cast<code>((word >> (position % 8)) & ((1U << Bits) - 1));
    }
};

/// Calls `f.template operator()<Bits>()` for a number of bits known only at run time, 1 to 8.
template <class F> decltype(auto) with_bits(int bits, F&& f) {
    DETENT_EXPECTS(bits >= 1 && bits <= 8);
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
