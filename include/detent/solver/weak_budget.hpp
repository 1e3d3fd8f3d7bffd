// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// A layer that shares a budget of weak columns: its weights (out, in), and how many weak columns it gets for an input
/// compared with the others; 0 for none.
struct weak_share {
    extents shape;
    double ratio = 1;
};

/// How a number of bits becomes numbers of weak columns.
enum class weak_rule {
    exact,    ///< by the weights of these layers, whatever the architecture
    published ///< OWQ's: blocks have 12 times as many weights as their attention's query, as in OPT
};

/// How many columns of each layer shall be weak, so that a weight takes `target` bits on average: `bits` in a code, 16
/// in a weak column, not counting scales. Rounded to even numbers, as the published code does, which makes small
/// models exceed the target. With `exact` the share r of weak inputs (times `ratio`) solves
///     sum over layers of (16 - bits) r ratio in out = (target - bits) sum of in out.
/// @throws error where `target` is less than `bits`, there is no place for so many, or a ratio is negative.
inline std::vector<index_t> weak_budget(int bits, double target, std::span<weak_share const> layers,
                                        weak_rule rule = weak_rule::exact) {
    expect_option(bits >= 1 && bits <= 8, "weak columns", "number of bits of a code", bits, "from 1 to 8");
    if (!(target >= bits && target < 16)) {
        raise(error("weak columns", "cannot make " + std::to_string(target) + " bits of codes of " +
                                        std::to_string(bits) + " and columns of 16"));
    }
    double weights = 0;
    double shared = 0;
    double sharing = 0; // layers
    for (weak_share const& layer : layers) {
        expect_option(layer.ratio >= 0 && is_finite(layer.ratio), "weak columns", "ratio", layer.ratio, "0 or more");
        expect_valid(layer.shape.rows >= 0 && layer.shape.cols >= 0, "weak columns",
                     "are of a layer of negative shape");
        auto const size = static_cast<double>(layer.shape.size());
        weights += size;
        shared += layer.ratio * size;
        sharing += layer.ratio > 0 ? 1 : 0;
    }
    double const spread = rule == weak_rule::exact ? weights / shared : 12 / sharing;
    double const r = shared > 0 ? (target - bits) / (16 - bits) * spread : 0;
    std::vector<index_t> counts(layers.size());
    for (std::size_t i = 0; i < layers.size(); ++i) {
        weak_share const& layer = layers[i];
        auto const cols = static_cast<double>(layer.shape.cols);
        double const share = std::nearbyint(cols * r * layer.ratio);
        if (!(share <= cols)) { // also where it is no number
            raise(error("weak columns", std::to_string(target) + " bits would make more inputs weak than the " +
                                            std::to_string(layer.shape.cols) + " that there are"));
        }
        auto n = static_cast<index_t>(share);
        n += n % 2;
        if (n > 0 && n >= layer.shape.cols) {
            raise(error("weak columns", std::to_string(target) + " bits would make " + std::to_string(n) + " of " +
                                            std::to_string(layer.shape.cols) + " inputs weak"));
        }
        counts[i] = n;
    }
    return counts;
}

} // namespace detent::inline DETENT_ABI
