// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/scale/range.hpp"

namespace detent::inline DETENT_ABI {

/// The scale with the smallest sum of squared errors, for grids of two numbers, one of each sign. For -1 and +1 it is
/// the mean absolute weight (XNOR-Net, Rastegari et al., equation 6), whose relative squared error is 1 - 2/pi = 0.36
/// for Gaussian weights.
struct least_squares_range {
    /// The scale of `tile`, stored as `format`.
    template <SignedGrid G>
    requires(G::bits == 1) tile_scale fit(G const& grid, matrix_view tile, scale_format format)
    const {
        double const scale = best(numbers_of(grid), entries_of(tile));
        auto const stored = [&](double s) { return store(format, static_cast<float>(s)); };
        auto const distance = [&](float s) { return std::abs(scale - double{s}); };
        float const above = stored(scale); // E8M0 rounds up
        float const below = stored(0.5 * scale);
        return {distance(below) < distance(above) ? below : above, 0};
    }

    friend constexpr bool operator==(least_squares_range, least_squares_range) = default;

private:
    /// Where the smallest k weights x take the number q = low and the others q = high, the best scale is
    /// sum(x q) / sum(q^2), which lowers the sum of squares by sum(x q)^2 / sum(q^2). This tries every k.
    template <class Weight> static double best(interval numbers, std::vector<Weight> x) {
        double const low = numbers.low;
        double const high = numbers.high;
        if (low == -high) { // the best k is the number of negative weights, whatever the order among them
            std::partition(x.begin(), x.end(), [](Weight weight) { return weight < 0; });
        } else {
            std::sort(x.begin(), x.end());
        }
        double products = high * std::accumulate(x.begin(), x.end(), 0.0); // sum(x q)
        double squares = high * high * static_cast<double>(x.size());
        double gain = 0;
        double scale = 0;
        auto const compare = [&] {
            if (products > 0 && products * products > gain * squares) {
                gain = products * products / squares;
                scale = products / squares;
            }
        };
        compare();
        for (double const weight : x) { // becomes the next to take the lower number
            products += (low - high) * weight;
            squares += low * low - high * high;
            compare();
        }
        return scale;
    }
};

} // namespace detent::inline DETENT_ABI
