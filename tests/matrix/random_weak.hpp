// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/matrix/solution.hpp"

namespace detent::test {

/// `count` of `n` columns, ascending; the first and the last are among them where there is room.
inline std::vector<std::int32_t> random_columns(index_t n, index_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::int32_t> columns;
    for (std::int32_t const end : {0, static_cast<std::int32_t>(n - 1)}) {
        if (std::ssize(columns) < std::min(count, n) && std::ranges::count(columns, end) == 0) {
            columns.push_back(end);
        }
    }
    while (std::ssize(columns) < std::min(count, n)) {
        auto const column = static_cast<std::int32_t>(random() % static_cast<unsigned>(n));
        if (std::ranges::count(columns, column) == 0) {
            columns.push_back(column);
        }
    }
    std::ranges::sort(columns);
    return columns;
}

/// Gives these stored columns random numbers, and codes that stand for 0.
template <Grid G>
void weaken(solution& s, G const& grid, std::vector<std::int32_t> columns, float_format format, unsigned seed = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 4);
    s.weak = weak_columns(std::move(columns), s.shape.rows, format);
    for (index_t k = 0; k < s.weak.count(); ++k) {
        index_t const col = s.weak.columns()[static_cast<std::size_t>(k)];
        for (index_t row = 0; row < s.shape.rows; ++row) {
            s.weak.set(k, row, normal(random));
            tile_scale const scale = s.scale_at(row, col);
            s.code_at(row, col) = encode(grid, 0.0F, scale);
            DETENT_EXPECTS(decode(grid, s.code_at(row, col), scale) == 0);
        }
    }
}

inline constexpr float_format all_formats[] = {float_format::f16, float_format::bf16, float_format::f32};

} // namespace detent::test
