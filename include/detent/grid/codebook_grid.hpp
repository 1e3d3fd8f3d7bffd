// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <limits>

#include "detent/grid/grid.hpp"

namespace detent::inline DETENT_ABI {

/// Any 2 to 256 numbers: `Table::values` is a `std::array<float, N>` in ascending order, and code i names value i.
/// A number halfway between two values takes the lower one.
template <class Table> struct codebook_grid {
    static constexpr auto& values = Table::values;
    static_assert(values.size() >= 2 && values.size() <= 256, "a codebook has 2 to 256 values");
    static_assert(std::ranges::adjacent_find(values, std::greater_equal{}) == values.end(),
                  "the values of a codebook ascend");
    static constexpr int bits = std::bit_width(values.size() - 1);

    static constexpr float lowest() { return values.front(); }
    static constexpr float highest() { return values.back(); }

    static constexpr float decode(code c) {
        return c < values.size() ? values[c] : std::numeric_limits<float>::quiet_NaN();
    }

    static constexpr code encode(float x) {
        return static_cast<code>(std::ranges::lower_bound(midpoints, double{x}) - midpoints.begin());
    }

    friend constexpr bool operator==(codebook_grid, codebook_grid) = default;

private:
    static constexpr auto midpoints = [] { // double holds them exactly
        std::array<double, values.size() - 1> m{};
        for (std::size_t i = 0; i < m.size(); ++i) {
            m[i] = 0.5 * values[i] + 0.5 * values[i + 1];
        }
        return m;
    }();
};

/// The 4-bit NormalFloat values of QLoRA: quantiles of a normal distribution, with an exact zero.
struct nf4_values {
    static constexpr std::array<float, 16> values{
        -1.0F,           -0.69619280100F, -0.52507305145F, -0.39491748810F, -0.28444138169F, -0.18477343023F,
        -0.09105003625F, 0.0F,            0.07958029956F,  0.16093020141F,  0.24611230195F,  0.33791524172F,
        0.44070982933F,  0.56261700392F,  0.72295683622F,  1.0F};
};
using nf4 = codebook_grid<nf4_values>;

/// -1, 0 and +1.
struct ternary_values {
    static constexpr std::array<float, 3> values{-1.0F, 0.0F, 1.0F};
};
using ternary = codebook_grid<ternary_values>;

} // namespace detent::inline DETENT_ABI
