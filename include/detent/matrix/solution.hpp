// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/finite.hpp"
#include "detent/grid/grid.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/input_map.hpp"
#include "detent/matrix/packed_matrix.hpp"
#include "detent/matrix/weak_columns.hpp"
#include "detent/scale/scale_store.hpp"

namespace detent::inline DETENT_ABI {

/// What a solver met on its way. Nothing here is an error; everything here is worth a look.
struct solve_report {
    double loss = 0;            ///< 0.5 tr(D H D^T), D the error and H the damped Hessian; 0 without a Hessian
    double damping = 0;         ///< the relative damping the factorization needed
    int damping_raised = 0;     ///< how many times it had to be multiplied by 10
    index_t dead_columns = 0;   ///< inputs that were always zero; their weights are rounded to nearest
    index_t weak_missing = 0;   ///< weak columns asked for beyond the inputs that were ever seen
    index_t clamped_scales = 0; ///< tiles whose scale does not fit its format; see `clamped_scales`
    std::string fallback;       ///< why the solver rounded to nearest instead; empty when it did not
};

/// A solver's answer for one weight matrix: a code for every weight and a scale for every tile. Columns are those of
/// the mapped weights W M^-1, which meet mapped inputs M x.
struct solution {
    extents shape; ///< (out, in)
    extents tile;
    scale_store scales;
    std::vector<float> table; ///< the numbers of the 2^bits codes; NaN where a code names none
    std::vector<code> codes;  ///< (out, in)
    input_map map = {};       ///< M
    /// The tile that each column is of, ascending, where a problem has lost some of its columns and tiles have kept
    /// theirs; else empty, and it is column / tile.cols.
    std::vector<std::int32_t> tile_of = {};
    weak_columns weak = {};                         ///< in high precision; the codes there stand for 0
    std::optional<activation_quantizer> input = {}; ///< rounds mapped inputs; none where they stay as they are
    solve_report report = {};

    /// Which tile of its row column `col` is of.
    index_t tile_at(index_t col) const {
        return tile_of.empty() ? col / tile.cols : index_t{tile_of[static_cast<std::size_t>(col)]};
    }
    /// The first column of tile `t` of a row; that of the last one and 1 is `shape.cols`.
    index_t first_of_tile(index_t t) const {
        return tile_of.empty()
                   ? std::min(t * tile.cols, shape.cols)
                   : std::lower_bound(tile_of.begin(), tile_of.end(), static_cast<std::int32_t>(t)) - tile_of.begin();
    }
    /// The scale of the weight at `row` and `col`.
    tile_scale scale_at(index_t row, index_t col) const { return scales.at(row / tile.rows, tile_at(col)); }
    /// The scales and zero points of all weights of `row`.
    void scales_of_row(index_t row, float* scale, float* zero) const {
        for (index_t col = 0; col < shape.cols; ++col) {
            tile_scale const t = scale_at(row, col);
            scale[col] = t.scale;
            zero[col] = t.zero;
        }
    }
    code& code_at(index_t row, index_t col) { return codes[static_cast<std::size_t>(row * shape.cols + col)]; }
    code code_at(index_t row, index_t col) const { return codes[static_cast<std::size_t>(row * shape.cols + col)]; }
};

/// @throws error unless all parts of a solution, as a user's own solver may have made it, have the sizes that its tile
/// and `shape` say, and codes have numbers.
template <std::same_as<solution> S> void expect_complete(S const& s, extents shape) {
    auto const complain = [](bool right, char const* problem) { expect_valid(right, "solution", problem); };
    complain(s.shape == shape, "has another shape than the weights");
    complain(s.table.size() >= 2 && s.table.size() <= 256 && std::has_single_bit(s.table.size()),
             "has not 2^bits numbers");
    complain(std::ssize(s.codes) == shape.size(), "has not one code for each weight");
    if (shape.size() > 0) {
        code largest = 0;
        for (code const c : s.codes) {
            largest = std::max(largest, c);
        }
        complain(largest < s.table.size(), "has a code without a number");
        complain(s.tile.rows > 0 && s.tile.cols > 0, "has tiles without weights");
        complain(s.scales.complete() && s.scales.tiles.rows == ceil_div(shape.rows, s.tile.rows) &&
                     (!s.tile_of.empty() || s.scales.tiles.cols == ceil_div(shape.cols, s.tile.cols)),
                 "has not one scale for each tile");
    }
}

/// How many tiles of `w` (out, in), which `s` solves, have a scale that does not fit its format, too large or too
/// small. Those are the tiles with the largest or the smallest scale that the format has, where `store` puts all scales
/// beyond. The largest scale of a format with a unit does not count, because the unit is chosen so that it fits. Tiles
/// of zeros do not count either (apart from weak columns), because any scale serves them. @throws error when `s` is not
/// whole, or for another shape.
template <class Scalar = float> index_t clamped_scales(matrix_view w, solution const& s) {
    expect_complete(s, shape_of(w));
    basic_matrix<Scalar> const mapped = s.map.of_weights(w); // (out, in)
    scale_format const format = s.scales.format;
    scale_limits const limits = limits_of(format);
    auto const only_zeros = [&](index_t top, index_t left) {
        for (index_t row = top; row < std::min(top + s.tile.rows, s.shape.rows); ++row) {
            for (index_t col = left; col < std::min(left + s.tile.cols, s.shape.cols); ++col) {
                if (mapped(row, col) != 0 && s.weak.find(col) < 0) {
                    return false;
                }
            }
        }
        return true;
    };
    index_t count = 0;
    for (index_t i = 0; i < s.scales.tiles.rows; ++i) {
        for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
            float const scale = s.scales.at(i, j).scale;
            bool const at_end = scale == limits.smallest || (scale == limits.largest && !format.has_unit());
            count += at_end && !only_zeros(i * s.tile.rows, j * s.tile.cols) ? 1 : 0;
        }
    }
    return count;
}

/// @throws error where a scale is not finite, or a code stands for a number that is not: weights that are nearly as
/// large as floats can be are rounded beyond them.
template <std::same_as<solution> S> void expect_finite_numbers(S const& s) {
    auto const number_of = [&](float number, tile_scale t) { return (number - t.zero) * t.scale; };
    auto const largest_of = [](float a, float b) { return is_nan(b) ? a : std::max(a, std::abs(b)); };
    float const largest = std::accumulate(s.table.begin(), s.table.end(), 0.0F, largest_of);
    for (index_t i = 0; i < s.scales.tiles.rows; ++i) {
        for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
            tile_scale const t = s.scales.at(i, j);
            index_t const top = i * s.tile.rows;
            expect_valid(is_finite(t.scale) && is_finite(t.zero), "scales", "are not finite");
            if (is_finite((largest + std::abs(t.zero)) * t.scale)) {
                continue;
            }
            for (index_t row = top; row < std::min(s.shape.rows, top + s.tile.rows); ++row) {
                for (index_t col = s.first_of_tile(j); col < s.first_of_tile(j + 1); ++col) {
                    if (!is_finite(number_of(s.table[s.code_at(row, col)], t))) {
                        raise(error("weights", "the weight at row " + std::to_string(row) + ", column " +
                                                   std::to_string(col) + " is rounded to a number beyond all floats"));
                    }
                }
            }
        }
    }
}

/// A packed matrix, what its solver reported, and how its input is to be quantized.
struct quantization {
    packed_matrix weights;
    solve_report report;
    std::optional<activation_quantizer> input = {}; ///< rounds mapped inputs; none where they stay as they are
};

/// The solution as packed bytes. @throws error where it is not whole, or stands for numbers that are not finite.
template <std::same_as<solution> S> packed_matrix pack(S const& s) {
    expect_complete(s, s.shape);
    expect_finite_numbers(s);
    expect_valid(s.tile_of.empty(), "solution", "is for some of the columns of a matrix");
    int const bits = static_cast<int>(std::bit_width(s.table.size())) - 1;
    return {.bits = bits,
            .extent = s.shape,
            .tile = s.tile,
            .scales = s.scales,
            .table = s.table,
            .map = s.map,
            .codes = pack_rows(bits, s.shape, s.codes.data()),
            .weak = s.weak};
}

/// The solution as packed bytes with all that belongs to it.
template <std::same_as<solution> S> quantization packed(S s) {
    return {pack(s), std::move(s.report), std::move(s.input)};
}

/// The mapped weights (out, in) that the codes of a solution stand for; weak columns count as 0.
template <class Scalar = float> basic_matrix<Scalar> decode(solution const& s) {
    basic_matrix<Scalar> numbers(s.shape.rows, s.shape.cols);
    for (index_t row = 0; row < s.shape.rows; ++row) {
        for (index_t tile = 0; tile < s.scales.tiles.cols; ++tile) {
            tile_scale const t = s.scales.at(row / s.tile.rows, tile);
            index_t const end = s.first_of_tile(tile + 1);
            for (index_t col = s.first_of_tile(tile); col < end; ++col) {
                numbers(row, col) = (s.table[s.code_at(row, col)] - t.zero) * t.scale;
            }
        }
    }
    return numbers;
}

#if defined(DETENT_COMPILED)
extern template index_t clamped_scales<float>(matrix_view, solution const&);
extern template matrix decode<float>(solution const&);
#endif

} // namespace detent::inline DETENT_ABI
