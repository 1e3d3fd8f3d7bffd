// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/core/finite.hpp"
#include "detent/core/half.hpp"
#include "detent/io/ggml_blocks.hpp"
#include "detent/io/ggml_formats.hpp"
#include "detent/matrix/packed_matrix.hpp"

// How packed matrices become blocks of ggml whose scales have two levels. A matrix has their products only; the f16
// number of a block and the integers are found again, so that what is read back is the matrix to the bit.

namespace detent::inline DETENT_ABI::io {

/// An f16 number and integers from `lowest` to `highest`, one for each of `numbers`, whose products `is_product(i, p)`
/// takes for those of number i; the largest number, as far from 0 as may be, tells. None where there are none.
template <class IsProduct>
std::optional<ggml::block_factors> find_factors(std::span<double const> numbers, int lowest, int highest,
                                                IsProduct const& is_product) {
    double largest = 0;
    for (double const number : numbers) {
        largest = std::abs(number) > std::abs(largest) ? number : largest;
    }
    auto const tried = [&](int integer) -> std::optional<ggml::block_factors> {
        ggml::block_factors found{.unit = static_cast<float>(half(static_cast<float>(largest / integer)))};
        if (!is_finite(found.unit)) {
            return std::nullopt;
        }
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            double const ratio = found.unit != 0 ? std::nearbyint(numbers[i] / found.unit) : 0;
            if (!(ratio >= lowest && ratio <= highest)) {
                return std::nullopt;
            }
            found.integers[i] = static_cast<int>(ratio);
            if (!is_product(i, found.unit * static_cast<float>(found.integers[i]))) {
                return std::nullopt;
            }
        }
        return found;
    };
    for (int size = std::max(highest, -lowest); size > 0; --size) {
        for (int const integer : {size, -size}) {
            if (integer >= lowest && integer <= highest) {
                if (auto found = tried(integer)) {
                    return found;
                }
            }
        }
    }
    return std::nullopt;
}

/// The scales of a block, and what is subtracted from its weights.
struct super_block_factors {
    ggml::block_factors scales, least;
};

/// Those of the block that begins at column `col` of `row`; none where scales or zero points are no such products. A
/// tile of one number, whose codes are 0, has the scale 0 in a block.
template <class Block>
std::optional<super_block_factors> super_block_of(packed_matrix const& w, index_t row, index_t col) {
    std::array<double, 16> scales{}, least{};
    std::array<tile_scale, 16> tiles{};
    std::array<bool, 16> constant{};
    for (index_t i = 0; i < Block::tiles; ++i) {
        auto const at = static_cast<std::size_t>(i);
        index_t const first = col + i * Block::tile_cols;
        tile_scale const s = tiles[at] = w.scales.at(row / w.tile.rows, first / w.tile.cols);
        if constexpr (Block::has_least) {
            constant[at] = std::abs(s.zero) == 1 || s.scale == 0;
            for (index_t k = first; constant[at] && k < first + Block::tile_cols; ++k) {
                constant[at] = w.code_at(row, k) == 0;
            }
            least[at] = double{s.zero} * s.scale;
        }
        scales[at] = constant[at] ? 0 : s.scale;
    }
    auto const count = static_cast<std::size_t>(Block::tiles);
    auto const factors =
        find_factors(std::span(scales).first(count), Block::lowest, Block::highest,
                     [&](std::size_t i, float product) { return product == static_cast<float>(scales[i]); });
    if (!factors || !Block::has_least) {
        return factors ? std::optional(super_block_factors{*factors, {}}) : std::nullopt;
    }
    auto const subtracted =
        find_factors(std::span(least).first(count), 0, Block::highest, [&](std::size_t i, float product) {
            return constant[i] ? product == static_cast<float>(least[i]) : product / tiles[i].scale == tiles[i].zero;
        });
    return subtracted ? std::optional(super_block_factors{*factors, *subtracted}) : std::nullopt;
}

/// Why blocks of two levels cannot hold `w` to the bit, as the end of a sentence about their type; empty when they can.
template <class Block> std::string super_block_obstacle(packed_matrix const& w) {
    if (auto obstacle = place_obstacle<Block>(w); !obstacle.empty()) {
        return obstacle;
    }
    float const lowest = Block::number(0);
    if (!is_consecutive(w.table) || w.table.front() != lowest || Block::has_least == w.scales.zeros.empty()) {
        return Block::has_least ? "its grids are integers with zero points" : "its grids are symmetric integers";
    }
    if (w.scales.scales.empty()) { // an outline
        return w.scales.format == float_format::f32 ? "" : "its scales are f32, products of two levels";
    }
    for (index_t row = 0; row < w.shape().rows; row += w.tile.rows) {
        for (index_t col = 0; col < w.shape().cols; col += Block::block_codes) {
            if (!super_block_of<Block>(w, row, col)) {
                return "its scales are an f16 number for 256 weights times small integers";
            }
        }
    }
    return {};
}

/// Writes rows [first, last) of `w`, which has no obstacle, as blocks, to the bit.
template <class Block>
void write_super_blocks(packed_matrix const& w, index_t first, index_t last, std::uint8_t* blocks) {
    extents const shape{last - first, w.shape().cols};
    codes_from_linear<Block>(w.codes.data() + first * w.row_bytes(), shape, blocks);
    for (index_t row = first; row < last; ++row) {
        for (index_t col = 0; col < shape.cols; col += Block::block_codes, blocks += Block::block_bytes) {
            auto const factors = super_block_of<Block>(w, row, col).value();
            Block::put_factors(blocks, factors.scales, factors.least);
        }
    }
}

} // namespace detent::inline DETENT_ABI::io
