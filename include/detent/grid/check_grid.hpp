// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/grid.hpp"
#include "detent/grid/int_grid.hpp"

// A grid that breaks its promises would make weights of nothing, for instance zeros, without a word.

namespace detent::inline DETENT_ABI {

/// Which promise of `Grid` a type breaks.
enum class grid_fault {
    none,
    ends,  ///< `lowest` and `highest` are not the smallest and the largest number, or not encoded as themselves
    codes, ///< a number is not encoded as itself, or a code has too many bits
    far,   ///< what lies beyond an end is not encoded as that end
    order  ///< a larger number is encoded as a smaller one
};

/// What an error says of a grid with that fault.
constexpr char const* sentence_of(grid_fault fault) {
    switch (fault) {
    case grid_fault::none:
        break;
    case grid_fault::ends:
        return "lowest() and highest() are not its smallest and largest numbers, encoded and decoded";
    case grid_fault::codes:
        return "a number is not encoded as itself, or its code has too many bits";
    case grid_fault::far:
        return "what lies far beyond lowest() or highest() is not encoded as that end";
    case grid_fault::order:
        return "a larger number is encoded as a smaller one";
    }
    return "is as it should be";
}

/// Rounds numbers to a grid and notes whether a code has too many bits.
template <Grid G> struct code_checker {
    G const& grid;
    bool codes_fit = true;

    constexpr float decoded(code c) {
        bool const fits = c < (std::size_t{1} << G::bits);
        codes_fit = codes_fit && fits;
        return fits ? grid.decode(c) : std::numeric_limits<float>::quiet_NaN();
    }
    constexpr float operator()(float x) { return decoded(grid.encode(x)); }

    /// Whether `x`, beyond the end `end`, becomes that, with every zero point too where no such shift reaches `x`.
    constexpr bool clips(float x, float end) {
        bool right = (*this)(x) == end;
        if constexpr (AffineGrid<G>) {
            if ((x < 0 ? -x : x) < 2 * (grid.highest() - grid.lowest())) {
                return right;
            }
            right = right && decoded(grid.encode(x, grid.lowest())) == end;
            right = right && decoded(grid.encode(x, grid.highest())) == end;
        }
        return right;
    }

    /// Whether numbers beyond both ends, the largest floats among them, become those; the numbers next to the ends
    /// are `second` and `last_but_one`.
    constexpr bool clips_all(float second, float last_but_one) {
        constexpr float largest = std::numeric_limits<float>::max();
        float const low = grid.lowest();
        float const high = grid.highest();
        bool right =
            (*this)(high + 0.5F * (high - last_but_one)) == high && (*this)(low - 0.5F * (second - low)) == low;
        for (float far = largest; far > 1; far *= 0.0625F) {
            right = right && (far <= high || clips(far, high)) && (-far >= low || clips(-far, low));
        }
        return right;
    }
};

/// The first promise that `grid` breaks: its ends are numbers, every number is encoded as itself, what lies between two
/// numbers as one of them, and everything beyond an end as that end. Codes may name no number.
template <Grid G> constexpr grid_fault fault_of(G const& grid) {
    float const low = grid.lowest();
    float const high = grid.highest();
    code_checker<G> rounded{grid};
    if (!(low < high) || rounded(low) != low || rounded(high) != high) {
        return rounded.codes_fit ? grid_fault::ends : grid_fault::codes;
    }
    std::array<float, (std::size_t{1} << G::bits)> numbers{};
    std::size_t count = 0;
    for (std::size_t c = 0; c < numbers.size(); ++c) {
        float const x = grid.decode(static_cast<code>(c));
        if (is_nan(x)) {
            continue; // no number
        }
        if (!(x >= low && x <= high)) {
            return grid_fault::ends;
        }
        if (rounded(x) != x) {
            return grid_fault::codes;
        }
        numbers[count++] = x;
    }
    std::sort(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(count));
    count = static_cast<std::size_t>(
        std::unique(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(count)) - numbers.begin());
    for (std::size_t i = 0; i + 1 < count; ++i) {
        float const between = rounded(0.5F * numbers[i] + 0.5F * numbers[i + 1]);
        if (between != numbers[i] && between != numbers[i + 1]) {
            return grid_fault::order;
        }
    }
    if (!rounded.clips_all(numbers[1], numbers[count - 2])) {
        return rounded.codes_fit ? grid_fault::far : grid_fault::codes;
    }
    return rounded.codes_fit ? grid_fault::none : grid_fault::codes;
}

/// Grids whose tests are the library's own.
template <class G> inline constexpr bool is_tested_grid = false;
template <int Bits, zero Zero> inline constexpr bool is_tested_grid<int_grid<Bits, Zero>> = true;
template <int E, int M, reserved R> inline constexpr bool is_tested_grid<fp_grid<E, M, R>> = true;
template <class Table> inline constexpr bool is_tested_grid<codebook_grid<Table>> = true;

/// A grid of few numbers, the same for all values of its type, that compilers can check.
template <class G>
concept CheckedByCompiler = Grid<G> && std::is_empty_v<G> && (G::bits <= 4) && requires {
    typename std::integral_constant<grid_fault, fault_of(G{})>;
};

/// Checks a user's grid where it enters the library, by the compiler where `encode` and `decode` are constexpr.
/// @throws error when it breaks a promise of `Grid`.
template <Grid G> void check_grid(G const& grid) {
    if constexpr (is_tested_grid<G>) {
        static_cast<void>(grid);
    } else if constexpr (CheckedByCompiler<G>) {
        constexpr grid_fault fault = fault_of(G{});
        static_assert(fault != grid_fault::ends, "lowest() and highest() of this grid are not its smallest and largest "
                                                 "numbers, encoded and decoded");
        static_assert(fault != grid_fault::codes, "this grid does not encode each of its numbers as itself, or a code "
                                                  "has too many bits");
        static_assert(fault != grid_fault::far, "this grid does not encode what lies far beyond lowest() or highest() "
                                                "as that end");
        static_assert(fault != grid_fault::order, "this grid encodes a larger number as a smaller one");
    } else if (grid_fault const fault = fault_of(grid); fault != grid_fault::none) {
        raise(error("grid", sentence_of(fault)));
    }
}

} // namespace detent::inline DETENT_ABI
