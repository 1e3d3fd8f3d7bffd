// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "detent/grid/codebook_grid.hpp"

namespace detent::test {

/// A grid as a user would write one: powers of two of both signs and no zero.
struct powers_of_two {
    static constexpr int bits = 3;
    static constexpr std::array<float, 8> values{-4, -2, -1, -0.5F, 0.5F, 1, 2, 4};

    static constexpr float lowest() { return -4; }
    static constexpr float highest() { return 4; }
    static constexpr float decode(code c) { return values[c]; }
    static code encode(float x) {
        double const inside = std::clamp(x, lowest(), highest());
        std::size_t nearest = 0;
        for (std::size_t c = 1; c < values.size(); ++c) {
            if (std::abs(values[c] - inside) < std::abs(values[nearest] - inside)) {
                nearest = c;
            }
        }
        return static_cast<code>(nearest);
    }

    friend constexpr bool operator==(powers_of_two, powers_of_two) = default;
};

/// Five values: three of the eight codes name no number.
struct five_values {
    static constexpr std::array<float, 5> values{-3.0F, -0.7F, 0.1F, 0.4F, 2.5F};
};
using five = codebook_grid<five_values>;

} // namespace detent::test
