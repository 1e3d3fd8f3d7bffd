// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A grid whose nearest number is sought by distances in float, which are all equal far away: such weights would become
// the number that the search begins with.
// expect: does not encode what lies far beyond lowest\(\) or highest\(\)

#include <array>
#include <cstddef>

#include "detent/solver/problem.hpp"

struct own_grid {
    static constexpr int bits = 2;
    static constexpr std::array<float, 4> values{0, -3, 1, 2};

    static constexpr float lowest() { return -3; }
    static constexpr float highest() { return 2; }
    static constexpr float decode(detent::code c) { return values[c]; }
    static constexpr detent::code encode(float x) {
#ifndef SLIP
        x = x < lowest() ? lowest() : x > highest() ? highest() : x;
#endif
        std::size_t nearest = 0;
        for (std::size_t c = 1; c < values.size(); ++c) {
            nearest = distance(values[c], x) < distance(values[nearest], x) ? c : nearest;
        }
        return static_cast<detent::code>(nearest);
    }
    static constexpr float distance(float a, float b) { return a < b ? b - a : a - b; }

    friend constexpr bool operator==(own_grid, own_grid) = default;
};

detent::problem_of<own_grid, detent::per_channel, detent::absmax_range> const p{own_grid{}};
