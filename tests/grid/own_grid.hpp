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

/// Two numbers that are not equally far from 0.
struct uneven_pair_values {
    static constexpr std::array<float, 2> values{-1.0F, 3.0F};
};
using uneven_pair = codebook_grid<uneven_pair_values>;

/// A grid whose numbers depend on its value: -3, -1, 1 and 3 steps. A number halfway between two takes the upper one.
struct odd_multiples {
    static constexpr int bits = 2;
    float step = 1;

    constexpr float lowest() const { return -3 * step; }
    constexpr float highest() const { return 3 * step; }
    constexpr float decode(code c) const { return static_cast<float>(2 * c - 3) * step; }
    constexpr code encode(float x) const {
        return x >= 2 * step ? code{3} : x >= 0 ? code{2} : x >= -2 * step ? code{1} : code{0};
    }

    friend constexpr bool operator==(odd_multiples, odd_multiples) = default;
};

/// An affine grid as a user would write one: the integers 0 to 7 with a zero point, where `up` says which part of a
/// step is rounded up.
struct half_up {
    static constexpr int bits = 3;
    static constexpr bool has_zero = true;
    float up = 0.5F;

    static constexpr float lowest() { return 0; }
    static constexpr float highest() { return 7; }
    static constexpr float decode(code c) { return c; }
    code encode(float x) const { return encode(x, 0); }
    code encode(float x, float zero) const {
        return static_cast<code>(std::clamp(std::floor(x + up) + zero, lowest(), highest()));
    }

    friend constexpr bool operator==(half_up, half_up) = default;
};

} // namespace detent::test
