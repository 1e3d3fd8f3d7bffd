// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

#include "detent/core/half.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// How scales of two levels are stored, as in the blocks of ggml that are called K: 256 consecutive weights of a row
/// share an f16 number, and the scale of each tile of them is that times a small integer. A weight is code * scale -
/// least, where the codes count from 0 and `least` is another such product, or number * scale with the numbers of a
/// symmetric grid.
struct two_level_format {
    static constexpr index_t block = 256; ///< weights that share an f16 number
    int bits = 4;
    bool shifted = true; ///< something is subtracted
    index_t tile = 32;   ///< weights that share a scale
    int lowest = 0;      ///< of the integers that scales are multiplied by; 0 itself is for tiles of one number
    int highest = 63;    ///< and of those of what is subtracted, which are not negative

    index_t tiles() const { return block / tile; }
    int lowest_number() const { return shifted ? 0 : -(1 << (bits - 1)); }
    int highest_number() const { return lowest_number() + (1 << bits) - 1; }

    friend bool operator==(two_level_format const&, two_level_format const&) = default;
};

/// ggml's formats of two levels: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
inline constexpr std::array<two_level_format, 5> two_level_formats{{
    {.bits = 2, .shifted = true, .tile = 16, .lowest = 0, .highest = 15},
    {.bits = 3, .shifted = false, .tile = 16, .lowest = -32, .highest = 31},
    {.bits = 4, .shifted = true, .tile = 32, .lowest = 0, .highest = 63},
    {.bits = 5, .shifted = true, .tile = 32, .lowest = 0, .highest = 63},
    {.bits = 6, .shifted = false, .tile = 16, .lowest = -128, .highest = 127},
}};

/// What the weights of a tile share: code * scale - least, both exact as floats.
struct two_level_scale {
    float scale = 1;
    float least = 0;
};

/// Weights of a tile and how much their errors count.
class two_level_tile {
public:
    /// `importance` is null where all count alike.
    two_level_tile(two_level_format const& format, float const* weights, float const* importance)
        : format_(format), x_(weights), importance_(importance) {}

    /// The sum of squared errors of rounding to the nearest numbers.
    double error(two_level_scale s) const {
        double sum = 0;
        for (index_t i = 0; i < format_.tile; ++i) {
            double const e = double{number(x_[i], s)} * s.scale - s.least - x_[i];
            sum += weight(i) * e * e;
        }
        return sum;
    }

    /// The best of scales of any precision: from several widths of the range, least squares for the numbers that
    /// weights are rounded to.
    two_level_scale fit() const {
        auto const [low, high] = std::minmax_element(x_, x_ + format_.tile);
        float const smallest = std::min(*low, 0.0F), largest = std::max(*high, 0.0F);
        if (smallest == largest) {
            return {0, 0};
        }
        best_ = std::numeric_limits<double>::infinity();
        constexpr int steps = 16;
        for (int step = 0; step <= steps; ++step) {
            float const width = 0.7F + 0.4F * static_cast<float>(step) / steps; // of the whole range
            if (format_.shifted) {
                float const scale = width * (largest - smallest) / static_cast<float>(format_.highest_number());
                try_near({scale, -smallest});
                try_near({scale, -smallest * width});
            } else {
                float const size = std::max(largest, -smallest);
                float const scale = width * size / static_cast<float>(-format_.lowest_number());
                try_near({scale, 0});
                try_near({-scale, 0}); // one number more is on the other side
            }
        }
        return found_;
    }

private:
    double weight(index_t i) const { return importance_ != nullptr ? importance_[i] : 1.0; }

    /// The number that weight `x` is rounded to, before the scale.
    float number(float x, two_level_scale s) const {
        float const nearest = std::nearbyint((x + s.least) / s.scale);
        return std::clamp(nearest, static_cast<float>(format_.lowest_number()),
                          static_cast<float>(format_.highest_number()));
    }

    /// Keeps `s`, or the least squares for the numbers it rounds to, where that is the best so far.
    void try_near(two_level_scale s) const {
        keep(s);
        double w = 0, q = 0, qq = 0, x = 0, qx = 0; // sums
        for (index_t i = 0; i < format_.tile; ++i) {
            double const one = weight(i), n = number(x_[i], s);
            w += one;
            q += one * n;
            qq += one * n * n;
            x += one * x_[i];
            qx += one * n * x_[i];
        }
        double const determinant = w * qq - q * q;
        if (format_.shifted && determinant > 0) {
            double const scale = (w * qx - q * x) / determinant, least = (scale * q - x) / w;
            if (scale > 0 && least >= 0) {
                return keep({static_cast<float>(scale), static_cast<float>(least)});
            }
        }
        if (qq > 0 && qx / qq != 0) {
            keep({static_cast<float>(qx / qq), 0});
        }
    }

    void keep(two_level_scale s) const {
        if (s.scale == 0 || !std::isnormal(s.scale)) {
            return;
        }
        if (double const e = error(s); e < best_) {
            best_ = e;
            found_ = s;
        }
    }

    two_level_format const& format_;
    float const* x_;
    float const* importance_;
    mutable double best_ = 0;
    mutable two_level_scale found_ = {0, 0};
};

/// The scales of the tiles of a block of 256 `weights`, each of whose squared errors counts by `importance`, or alike
/// where that is null: the best of each tile in any precision, then the two f16 numbers, then for each tile the
/// integers around the rounded ones that make the smallest error. No scale is 0.
inline void fit_two_levels(two_level_format const& format, float const* weights, float const* importance,
                           std::span<two_level_scale> scales) {
    auto const of_tile = [&](index_t i) {
        index_t const first = i * format.tile;
        return two_level_tile(format, weights + first, importance != nullptr ? importance + first : nullptr);
    };
    float largest = 0, most = 0; // by size, with its sign
    for (index_t i = 0; i < format.tiles(); ++i) {
        auto const s = scales[static_cast<std::size_t>(i)] = of_tile(i).fit();
        largest = std::abs(s.scale) > std::abs(largest) ? s.scale : largest;
        most = std::max(most, s.least);
    }
    int const end = format.lowest < 0 ? format.lowest : format.highest; // for the largest
    float unit = static_cast<float>(half(largest / static_cast<float>(end)));
    unit = unit != 0 ? unit : 0x1p-24F; // the smallest number of f16
    float const least_unit = static_cast<float>(half(most / static_cast<float>(format.highest)));
    for (index_t i = 0; i < format.tiles(); ++i) {
        auto& s = scales[static_cast<std::size_t>(i)];
        auto const tile = of_tile(i);
        int const factor = static_cast<int>(std::nearbyint(s.scale / unit));
        int const least = least_unit > 0 ? static_cast<int>(std::nearbyint(s.least / least_unit)) : 0;
        double best = std::numeric_limits<double>::infinity();
        for (int f = factor - 1; f <= factor + 1; ++f) {
            int const chosen = std::clamp(f, format.lowest, format.highest);
            for (int l = least - 1; l <= least + 1; ++l) {
                two_level_scale const tried{
                    unit * static_cast<float>(chosen == 0 ? 1 : chosen),
                    format.shifted ? least_unit * static_cast<float>(std::clamp(l, 0, format.highest)) : 0};
                if (double const e = tile.error(tried); e < best) {
                    best = e;
                    s = tried;
                }
            }
        }
    }
}

} // namespace detent::inline DETENT_ABI
