// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <utility>

#include "detent/core/error.hpp"
#include "detent/grid/check_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/tile_scale.hpp"
#include "detent/simd/nearest.hpp"
#include "detent/simd/rounding_error.hpp"

namespace detent::inline DETENT_ABI {

/// The numbers of an integer grid for vector instructions.
template <int Bits, zero Zero>
    requires(Bits > 1 || Zero == zero::free)
simd::integer_set number_set(int_grid<Bits, Zero> const& grid) {
    return {grid.lowest(), int_grid<Bits, Zero>::levels, grid.has_zero};
}

/// The numbers of a floating-point grid for vector instructions.
template <int E, int M, reserved R> simd::float_set number_set(fp_grid<E, M, R> const& grid) {
    return {E, M, grid.highest()};
}

/// The numbers of any other grid for vector instructions, and the floats that become each of them, found by trying
/// floats with `encode`. @throws error when they do not rise with x.
template <Grid G> simd::number_list<G::bits> number_set(G const& grid) {
    simd::number_list<G::bits> list;
    std::size_t count = 0;
    auto const append = [&](code c) {
        if (count == list.most || (count > 0 && !(list.numbers[count - 1] <= grid.decode(c)))) {
            raise(error("grid", sentence_of(grid_fault::order)));
        }
        list.numbers[count] = grid.decode(c);
        list.codes[count] = c;
        list.in_order = list.in_order && c == count;
        ++count;
    };
    // Splits the floats from `low` to `high`, which become `first` and `last`, until the two are neighbours. Half the
    // time it splits near the mean of their numbers, where most grids do.
    auto const split = [&](auto const& again, std::int64_t low, code first, std::int64_t high, code last,
                           bool near_mean) -> void {
        if (first == last) {
            return;
        }
        if (high - low == 1) {
            list.last[count - 1] = static_cast<std::int32_t>(low);
            append(last);
            return;
        }
        std::int64_t const mean = simd::ordinal(0.5F * grid.decode(first) + 0.5F * grid.decode(last));
        std::int64_t const middle = near_mean ? std::clamp(mean, low + 1, high - 1) : low + (high - low) / 2;
        code const c = grid.encode(simd::float_at(static_cast<std::int32_t>(middle)));
        again(again, low, first, middle, c, !near_mean);
        again(again, middle, c, high, last, !near_mean);
    };
    constexpr float largest = std::numeric_limits<float>::max();
    append(grid.encode(-largest));
    split(split, simd::ordinal(-largest), list.codes[0], simd::ordinal(largest), grid.encode(largest), true);
    return list;
}

/// An affine grid that is no `int_grid` defines its own way to add the zero point: weights are rounded one by one.
template <AffineGrid G> G number_set(G const& grid) { return grid; }

/// Rounds many weights at once to a grid: `encode`, then `decode`, bit for bit, with vector instructions.
/// Built once for a grid (a few `encode`s for each of its numbers), then shared by all threads.
template <Grid G> class rounder {
public:
    explicit rounder(G const& grid = {}) : numbers_(number_set(grid)) {}

    /// Rounds `n` finite weights, each with its scale and zero point: writes the codes and the numbers they stand for.
    void operator()(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
                    float* numbers) const {
        if constexpr (one_by_one) {
            for (index_t i = 0; i < n; ++i) {
                round(weights[i], {scales[i], zeros[i]}, codes[i], numbers[i]);
            }
        } else {
            simd::round(numbers_, n, weights, scales, zeros, 1, codes, numbers);
        }
    }

    /// The same for weights that share their scale and zero point.
    void operator()(index_t n, float const* weights, tile_scale shared, code* codes, float* numbers) const {
        if constexpr (one_by_one) {
            for (index_t i = 0; i < n; ++i) {
                round(weights[i], shared, codes[i], numbers[i]);
            }
        } else {
            simd::round(numbers_, n, weights, shared.scale, shared.zero, codes, numbers);
        }
    }

    /// The sum of |x - decoded x|^norm over `n` finite weights x that share their scale and zero point, for a norm of
    /// at least 1; within a relative error of 2e-5 where it neither overflows nor underflows.
    float error(index_t n, float const* weights, tile_scale shared, float norm) const {
        if constexpr (one_by_one) {
            float sum = 0;
            for (index_t i = 0; i < n; ++i) {
                code c;
                float number;
                round(weights[i], shared, c, number);
                sum += std::pow(std::abs(weights[i] - number), norm);
            }
            return sum;
        } else {
            return simd::rounding_error(numbers_, n, weights, shared.scale, shared.zero, norm);
        }
    }

private:
    using numbers_type = decltype(number_set(std::declval<G const&>()));
    static constexpr bool one_by_one = std::same_as<numbers_type, G>;

    void round(float weight, tile_scale s, code& c, float& number) const {
        c = encode(numbers_, weight, s);
        number = decode(numbers_, c, s);
    }

    numbers_type numbers_;
};

} // namespace detent::inline DETENT_ABI
