// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>

#include "detent/grid/grid.hpp"

namespace detent::inline DETENT_ABI {

/// Whether the codes of an integer grid are shifted by a zero point of each tile.
enum class zero { none, free };

/// The integers of `Bits` bits. With a free zero point (asymmetric quantization) the codes are 0 .. 2^Bits - 1; without
/// (symmetric) the numbers are -2^(Bits-1) .. 2^(Bits-1) - 1, and with one bit -1 and +1.
/// Rounds half to even, as every paper's reference does.
template <int Bits, zero Zero = zero::free>
    requires(Bits >= 1 && Bits <= 8)
struct int_grid {
    static constexpr int bits = Bits;
    static constexpr bool has_zero = Zero == zero::free;
    static constexpr int levels = 1 << Bits;

    static constexpr float lowest() { return decode(0); }
    static constexpr float highest() { return decode(levels - 1); }

    static constexpr float decode(code c) { return static_cast<float>(has_zero ? c : step * c - (levels / 2)); }

    static code encode(float x) {
        if constexpr (step == 2) {
            return x > 0 ? 1 : 0;
        } else {
            return clamp(std::nearbyint(x) - lowest());
        }
    }

    /// The zero point is added after rounding and before clamping: the order decides ties.
    static code encode(float x, float zero_point)
        requires(Zero == zero::free)
    {
        return clamp(std::nearbyint(x) + zero_point);
    }

    friend constexpr bool operator==(int_grid, int_grid) = default;

private:
    // With one bit and no zero point the numbers are two apart.
    static constexpr int step = !has_zero && Bits == 1 ? 2 : 1;

    static code clamp(float n) {
        return static_cast<code>(static_cast<int>(std::clamp(n, 0.0F, static_cast<float>(levels - 1))));
    }
};

} // namespace detent::inline DETENT_ABI
