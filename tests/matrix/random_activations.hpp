// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstdint>
#include <random>

#include "detent/grid/grid.hpp"
#include "detent/matrix/quantized_activations.hpp"

namespace detent::test {

/// Random codes that name numbers and random scales, for each token or for all, and for each `width` features or for
/// all; features have random shifts up to `most_shift`, or none.
template <Grid G>
quantized_activations random_activations(G const& grid, extents shape, bool per_token, int most_shift, unsigned seed,
                                         index_t width = 0) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> scale(0.01F, 3);
    auto const table = table_of(grid);
    quantized_activations x{.shape = shape,
                            .bits = G::bits,
                            .table = {table.begin(), table.end()},
                            .width = width,
                            .scales = {},
                            .shifts = {},
                            .codes = std::vector<code>(static_cast<std::size_t>(shape.size()))};
    x.scales.resize(static_cast<std::size_t>((per_token ? shape.rows : 1) * x.groups()));
    for (tile_scale& s : x.scales) {
        s.scale = scale(random);
        s.zero = AffineGrid<G> ? static_cast<float>(random() >> 7 & ((1U << G::bits) - 1)) : 0;
    }
    for (index_t k = 0; k < (most_shift > 0 ? shape.cols : 0); ++k) {
        x.shifts.push_back(static_cast<std::int8_t>(random() % static_cast<unsigned>(most_shift + 1)));
    }
    for (code& c : x.codes) {
        do {
            c = static_cast<code>(random() >> 5 & ((1U << G::bits) - 1));
        } while (!std::isfinite(grid.decode(c)));
    }
    return x;
}

} // namespace detent::test
