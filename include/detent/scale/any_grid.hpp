// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/same_bits.hpp"
#include "detent/grid/check_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/grid.hpp"
#include "detent/scale/range.hpp"
#include "detent/scale/rounder.hpp"

namespace detent::inline DETENT_ABI {

/// How the bits of a floating-point number are split.
struct float_split {
    int exponent_bits = 0;
    int mantissa_bits = 0;

    friend constexpr bool operator==(float_split, float_split) = default;
};

/// The split of a floating-point grid, none of any other.
template <Grid G> constexpr std::optional<float_split> split_of(G const&) { return {}; }
template <int E, int M, reserved R> constexpr std::optional<float_split> split_of(fp_grid<E, M, R> const&) {
    return float_split{E, M};
}

/// A grid known only at run time, as activations need it. Rounds with the bits of `rounder<G>`.
class any_grid {
public:
    /// `name` is what specifications and files call it; a grid without one cannot be saved. @throws error where a
    /// user's grid breaks its promises (`check_grid`).
    template <class G>
    requires(!std::same_as<G, any_grid> && Grid<G>) explicit any_grid(G const& grid, std::string name = {})
        : name_(std::move(name)), bits_(G::bits), has_zero_(AffineGrid<G>), split_(split_of(grid)),
          numbers_(numbers_of(grid)), contains_zero_(detent::contains_zero(grid)), round_(rounder<G>(grid)) {
        check_grid(grid);
        auto const all = table_of(grid);
        table_.assign(all.begin(), all.end());
    }

    std::string const& name() const { return name_; }
    int bits() const { return bits_; }
    /// Whether codes may be shifted by a zero point.
    bool has_zero() const { return has_zero_; }
    /// Of a floating-point grid.
    std::optional<float_split> split() const { return split_; }
    /// Whether 0 is a number of the grid.
    friend bool contains_zero(any_grid const& grid) { return grid.contains_zero_; }
    friend interval numbers_of(any_grid const& grid) { return grid.numbers_; }
    /// The lowest and the highest number.
    interval numbers() const { return numbers_; }
    /// The numbers of all 2^bits codes; NaN where a code names none.
    std::vector<float> const& table() const { return table_; }

    /// The scale with which the numbers span `range`, stored as `format`, and the zero point where there is one;
    /// without, they reach the end that is farther from 0.
    tile_scale lay(interval range, scale_format format = float_format::f32) const {
        return lay_over(numbers_, has_zero_, range, format);
    }

    /// Rounds `n` finite numbers that share their scale and zero point: writes the codes and the numbers they stand
    /// for.
    void round(index_t n, float const* x, tile_scale shared, code* codes, float* numbers) const {
        round_(n, x, shared, codes, numbers);
    }

    /// Whether the codes of both name the same numbers.
    friend bool operator==(any_grid const& a, any_grid const& b) {
        return a.has_zero_ == b.has_zero_ && same_bits(a.table_, b.table_);
    }

private:
    std::string name_;
    int bits_;
    bool has_zero_;
    std::optional<float_split> split_;
    interval numbers_;
    bool contains_zero_;
    std::vector<float> table_;
    std::function<void(index_t, float const*, tile_scale, code*, float*)> round_;
};

} // namespace detent::inline DETENT_ABI
