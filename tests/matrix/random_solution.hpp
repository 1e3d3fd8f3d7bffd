// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "detent/matrix/solution.hpp"

namespace detent::test {

/// Random codes that name numbers, and random scales.
template <Grid G> solution random_solution(G const& grid, extents shape, extents tile, unsigned seed) {
    std::mt19937 random(seed);
    solution s{.shape = shape,
               .tile = tile,
               .scales = {shape, tile, float_format::f16, AffineGrid<G>},
               .table = {},
               .codes = std::vector<code>(static_cast<std::size_t>(shape.size()))};
    auto const table = table_of(grid);
    s.table.assign(table.begin(), table.end());
    for (code& c : s.codes) {
        do {
            c = static_cast<code>(random() >> 5 & ((1U << G::bits) - 1));
        } while (!std::isfinite(grid.decode(c)));
    }
    for (index_t r = 0; r < s.scales.tiles.rows; ++r) {
        for (index_t c = 0; c < s.scales.tiles.cols; ++c) {
            s.scales.set(r, c,
                         {static_cast<float>(random() % 100 + 1) / 64, static_cast<float>(random() % (1U << G::bits))});
        }
    }
    return s;
}

/// A random order of `n` inputs.
inline std::vector<std::int32_t> random_order(index_t n, unsigned seed) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::shuffle(order, std::mt19937(seed));
    return order;
}

} // namespace detent::test
