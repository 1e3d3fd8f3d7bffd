// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "detent/core/finite.hpp"
#include "detent/core/index.hpp"
#include "detent/kernel/integer_form.hpp"
#include "detent/matrix/packed_view.hpp"
#include "detent/simd/small_tables.hpp"

namespace detent::inline DETENT_ABI::kernel {

/// The numbers of a grid as integers and bytes that the machine multiplies: that of code c is
/// `integers[c] * unit = (bytes[c] + base) * unit`.
struct byte_numbers {
    integer_table table = {}; ///< of grids with zero points, `unit` is 2^-exponent
    std::uint8_t bytes[256] = {};
    std::int32_t base = 0;
    float unit = 1;
    bool exact = true; ///< whether those are the numbers of the grid and not rounded

    /// For grids of up to 6 bits, rounded if they are no small integers times a power of two, and for consecutive
    /// numbers of 8 bits, whose codes must be the bytes; nothing where the machine cannot multiply such bytes.
    static std::optional<byte_numbers> of(packed_view const& w) {
        bool const by_themselves = w.bits == 8 && w.consecutive && simd::lowest_weight_byte == 0;
        if (w.bits > 6 && !by_themselves) {
            return {};
        }
        auto const count = index_t{1} << w.bits;
        auto table = integers_of(w.table, w.bits, w.zeros != nullptr);
        float unit = table ? std::ldexp(1.0F, -table->exponent) : 0;
        bool const exact = table && table->highest - table->lowest <= 255;
        if (!exact) {
            float numbers[256];
            float largest = 0;
            for (index_t c = 0; c < count; ++c) {
                largest = std::max(largest, std::abs(w.table[c])); // not of codes that name no number
            }
            if (w.zeros != nullptr || !is_finite(largest)) {
                return {};
            }
            unit = largest / 127;
            std::transform(w.table, w.table + count, numbers, [&](float n) { return std::nearbyint(n / unit); });
            table = integers_of(numbers, w.bits, true);
        }
        if (table->highest - table->lowest > simd::widest_byte_span) {
            return {};
        }
        byte_numbers result{.table = *table,
                            .base = table->lowest - simd::lowest_weight_byte,
                            .unit = unit,
                            .exact = exact};
        for (std::size_t c = 0; c < static_cast<std::size_t>(count); ++c) {
            result.bytes[c] = static_cast<std::uint8_t>(table->integers[c] - result.base);
        }
        return result;
    }
};

} // namespace detent::inline DETENT_ABI::kernel
