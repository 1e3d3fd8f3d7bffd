// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/grid.hpp"

namespace detent::test {

/// The numbers of a grid, ascending.
template <Grid G> std::vector<float> numbers_of(G const& grid) {
    std::vector<float> numbers;
    for (int c = 0; c < 1 << G::bits; ++c) {
        if (float const v = grid.decode(static_cast<code>(c)); std::isfinite(v)) {
            numbers.push_back(v);
        }
    }
    std::ranges::sort(numbers);
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    return numbers;
}

/// Every number of the grid is encoded as a code that means it, and the ends are the ends.
template <Grid G> void expect_round_trip(G const& grid) {
    auto const numbers = numbers_of(grid);
    ASSERT_GE(numbers.size(), 2U);
    EXPECT_EQ(grid.lowest(), numbers.front());
    EXPECT_EQ(grid.highest(), numbers.back());
    for (float const v : numbers) {
        code const c = grid.encode(v);
        ASSERT_LT(c, 1 << G::bits) << v;
        ASSERT_EQ(grid.decode(c), v);
    }
}

/// No number of the grid is nearer to `x` than the one it is encoded as.
template <Grid G> void expect_nearest(G const& grid, std::vector<float> const& numbers, float x) {
    code const c = grid.encode(x);
    ASSERT_LT(c, 1 << G::bits) << x;
    double least = std::numeric_limits<double>::infinity();
    for (float const v : numbers) {
        least = std::min(least, std::abs(double{v} - x));
    }
    // A code that names no number decodes to NaN or infinity and fails here.
    ASSERT_EQ(std::abs(double{grid.decode(c)} - x), least) << x << " became " << grid.decode(c);
}

/// The same for many random numbers inside and outside the grid, and on both sides of all midpoints; and a larger
/// number never becomes a smaller one.
template <Grid G> void expect_nearest(G const& grid) {
    auto const numbers = numbers_of(grid);
    float const infinity = std::numeric_limits<float>::infinity();
    std::vector<float> xs{0.0F, -0.0F, 1e-30F, -1e-30F, 1e30F, -1e30F};
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        float const middle =
            i == 0 ? numbers[i] : static_cast<float>(0.5 * (double{numbers[i - 1]} + double{numbers[i]}));
        for (float const x : {numbers[i], middle}) {
            xs.insert(xs.end(), {std::nextafter(x, -infinity), x, std::nextafter(x, infinity)});
        }
    }
    std::mt19937 random(7);
    std::uniform_real_distribution<float> uniform(-1.2F, 1.2F);
    float const largest = std::max(-grid.lowest(), grid.highest());
    for (int i = 0; i < 500; ++i) {
        float const x = uniform(random) * largest;
        xs.insert(xs.end(), {x, std::ldexp(x, -(i % 20))});
    }
    std::ranges::sort(xs);
    float last = -infinity;
    for (float const x : xs) {
        ASSERT_NO_FATAL_FAILURE(expect_nearest(grid, numbers, x));
        float const v = grid.decode(grid.encode(x));
        ASSERT_LE(last, v) << x;
        last = v;
    }
}

template <Grid G> void expect_grid(G const& grid) {
    expect_round_trip(grid);
    expect_nearest(grid);
}

/// The numbers of the codes from 0 on.
template <Grid G> std::vector<float> first_numbers(G const& grid, int count) {
    auto const table = table_of(grid);
    return {table.begin(), table.begin() + count};
}

} // namespace detent::test
