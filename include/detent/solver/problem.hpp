// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/grid.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/range.hpp"
#include "detent/scale/rounder.hpp"
#include "detent/scale/scale_store.hpp"

namespace detent::inline DETENT_ABI {

/// What a solver is asked, as it sees it: it can have the scale of a tile fitted and weights rounded, and knows neither
/// grid nor range. So a solver is compiled once, and the loops of each grid are compiled for that grid.
class problem {
public:
    virtual ~problem() = default;

    /// The shape of the tiles of a weight matrix of this shape.
    virtual extents tile(extents shape) const = 0;

    /// The scale for the weights of a tile, as it will be stored; the tile begins at `row` and `col` of what the solver
    /// was given, columns in stored order.
    virtual tile_scale fit(matrix_view tile, index_t row, index_t col) const = 0;

    /// Rounds `n` weights, each with the scale and zero point of its tile: writes the codes and the numbers they stand
    /// for.
    virtual void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
                       float* numbers) const = 0;

    /// The numbers that `n` codes stand for, each with the scale and zero point of its tile.
    void decode(index_t n, code const* codes, float const* scales, float const* zeros, float* numbers) const {
        for (index_t i = 0; i < n; ++i) {
            numbers[i] = (table_[codes[i]] - zeros[i]) * scales[i];
        }
    }

    /// The numbers of all codes of the grid.
    std::vector<float> const& table() const { return table_; }

    /// The split of a floating-point grid, none of any other.
    std::optional<float_split> split() const { return split_; }

    /// The scale that spans `ratio` times what `s` does, as it will be stored.
    tile_scale widened(tile_scale s, float ratio) const { return {store(format_, s.scale * ratio), s.zero}; }

    /// A solution for `w` (out, in) of which only codes and scales are missing. @throws error when there are none or
    /// one is not finite.
    solution begin(matrix_view w) const {
        if (w.size() == 0) {
            throw error("weights", "are empty");
        }
        for (index_t r = 0; r < w.rows(); ++r) {
            if ((0 * w.row(r)).sum() == 0) { // which no number that is not finite leaves 0
                continue;
            }
            for (index_t c = 0; c < w.cols(); ++c) {
                if (!std::isfinite(w(r, c))) {
                    throw error("weights", "the weight at row " + std::to_string(r) + ", column " + std::to_string(c) +
                                               " is not finite");
                }
            }
        }
        extents const shape = shape_of(w);
        extents const tile_shape = tile(shape);
        return {.shape = shape,
                .tile = tile_shape,
                .scales = {shape, tile_shape, format_, has_zero_},
                .codes = std::vector<code>(static_cast<std::size_t>(shape.size())),
                .order = {},
                .report = {}};
    }

    /// Fits the scales of all tiles to `w`.
    void fit_all(matrix_view w, solution& s, executor_ref executor) const {
        executor.for_each(s.scales.tiles.rows, [&](index_t i) {
            index_t const row = i * s.tile.rows;
            for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
                index_t const col = j * s.tile.cols;
                s.scales.set(i, j,
                             fit(w.block(row, col, std::min(s.tile.rows, w.rows() - row),
                                         std::min(s.tile.cols, w.cols() - col)),
                                 row, col));
            }
        });
    }

protected:
    template <Grid G>
    problem(G const& grid, scale_format format) : format_(format), has_zero_(AffineGrid<G>), split_(split_of(grid)) {
        auto const table = table_of(grid);
        table_.assign(table.begin(), table.end());
    }
    problem(problem const&) = default;
    problem& operator=(problem const&) = default;

private:
    scale_format format_;
    bool has_zero_;
    std::optional<float_split> split_;
    std::vector<float> table_;
};

/// The problem for a grid, a granularity and a range: which numbers exist, who shares a scale, how it is chosen.
template <Grid G, Granularity P, RangeFor<G> R> class problem_of final : public problem {
public:
    explicit problem_of(G grid, P granularity = {}, R range = {}, scale_format format = {})
        : problem(grid, format), grid_(grid), rounder_(grid), granularity_(granularity), range_(range),
          format_(format) {}

    extents tile(extents shape) const override { return granularity_.tile(shape); }

    tile_scale fit(matrix_view weights, index_t, index_t) const override {
        return range_.fit(grid_, weights, format_);
    }

    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        rounder_(n, weights, scales, zeros, codes, numbers);
    }

private:
    G grid_;
    rounder<G> rounder_;
    P granularity_;
    R range_;
    scale_format format_;
};

/// Another problem with the scales given: those of a solution, for weights of the same shape in their natural order.
/// Solvers that look at groups on the way must fit them before (`static_groups`).
class with_scales final : public problem {
public:
    with_scales(problem const& p, solution const& s) : problem(p), problem_(p), tile_(s.tile), scales_(s.scales) {}

    extents tile(extents shape) const override { return problem_.tile(shape); }
    tile_scale fit(matrix_view, index_t row, index_t col) const override {
        return scales_.at(row / tile_.rows, col / tile_.cols);
    }
    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        problem_.round(n, weights, scales, zeros, codes, numbers);
    }

private:
    problem const& problem_;
    extents tile_;
    scale_store scales_;
};

/// The evidence of a solver that needs nothing but the weights.
struct no_evidence {};

/// A solver chooses a code for every weight. Its type says what it must know about the layer's inputs.
template <class S>
concept Solver = std::regular<S> && requires(S const solver, matrix_view w, typename S::evidence const& known,
                                             problem const& p, executor_ref executor) {
    { solver.solve(w, known, p, executor) } -> std::same_as<solution>;
};

} // namespace detent::inline DETENT_ABI
