// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/finite.hpp"
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

    /// The tile of each of so many columns, see `solution::tile_of`; empty where tiles are as wide as `tile` says.
    virtual std::vector<std::int32_t> tile_of(index_t) const { return {}; }

    /// The scale for the weights of a tile, as it will be stored, and where the tile begins.
    virtual tile_scale fit(matrix_view tile, tile_place place) const = 0;

    /// Rounds `n` weights, each with the scale and zero point of its tile: writes the codes and the numbers they stand
    /// for.
    virtual void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
                       float* numbers) const = 0;

    /// What there is to choose from where the format of numbers is open, the usual one first; this problem acts as
    /// that. Only this where there is no choice.
    virtual std::vector<problem const*> formats() const { return {this}; }

    /// This problem with the unit of scales that these weights ask for; null where scales have none.
    virtual std::unique_ptr<problem const> with_unit_of(matrix_view) const { return {}; }

    /// Whether scales depend on where a tile lies: every column then has to stay in its tile.
    bool placed() const { return about_.placed; }

    /// The numbers of all codes of the grid.
    std::vector<float> const& table() const { return about_.table; }

    /// The split of a floating-point grid, none of any other.
    std::optional<float_split> split() const { return about_.split; }

    /// How scales are stored.
    scale_format format() const { return about_.format; }

    /// Whether tiles have zero points.
    bool has_zero() const { return about_.has_zero; }

    /// The lowest and the highest number of the grid.
    interval numbers() const { return about_.numbers; }

    /// The scale that spans `ratio` times what `s` does, as it will be stored.
    tile_scale widened(tile_scale s, float ratio) const { return {store(format(), s.scale * ratio), s.zero}; }

    /// @throws error when there are no weights `w` (out, in) or one is not finite.
    static void expect_weights(matrix_view w) {
        if (w.size() == 0) {
            raise(error("weights", "are empty"));
        }
        for (index_t r = 0; r < w.rows(); ++r) {
            if (all_finite(w.data() + r * w.outerStride(), w.cols())) {
                continue;
            }
            for (index_t c = 0; c < w.cols(); ++c) {
                if (!is_finite(w(r, c))) {
                    raise(error("weights", "the weight at row " + std::to_string(r) + ", column " + std::to_string(c) +
                                               " is not finite"));
                }
            }
        }
    }

    /// A solution for `w` (out, in) of which only codes and scales are missing. @throws error when there are none or
    /// one is not finite.
    solution begin(matrix_view w) const {
        expect_weights(w);
        extents const shape = shape_of(w);
        extents const tile_shape = tile(shape);
        solution s{.shape = shape,
                   .tile = tile_shape,
                   .scales = {shape, tile_shape, format(), has_zero()},
                   .table = table(),
                   .codes = std::vector<code>(static_cast<std::size_t>(shape.size())),
                   .tile_of = tile_of(shape.cols)};
        if (!s.tile_of.empty()) {
            s.scales = {{shape.rows, (s.tile_of.back() + 1) * tile_shape.cols}, tile_shape, format(), has_zero()};
        }
        return s;
    }

    /// Fits the scales of all tiles to `w`.
    void fit_all(matrix_view w, solution& s, executor_ref executor) const {
        executor.for_each(s.scales.tiles.rows, [&](index_t i) {
            index_t const row = i * s.tile.rows;
            for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
                index_t const col = s.first_of_tile(j);
                index_t const cols = s.first_of_tile(j + 1) - col;
                if (cols > 0) { // else all its columns have been taken away
                    index_t const rows = std::min(s.tile.rows, w.rows() - row);
                    s.scales.set(i, j, fit(block_of(w, row, col, rows, cols), {row, col}));
                }
            }
        });
    }

protected:
    /// What can be said of a problem once for all weights.
    struct about {
        scale_format format = {};
        bool has_zero = false;
        bool placed = false;
        std::optional<float_split> split = {};
        interval numbers = {};
        std::vector<float> table = {};
    };

    explicit problem(about known) : about_(std::move(known)) {}
    /// What is said of another problem, whose scales are `placed`.
    problem(problem const& other, bool placed) : about_(other.about_) { about_.placed = placed; }
    problem(problem const&) = default;
    problem& operator=(problem const&) = default;

private:
    about about_;
};

/// Whether 0 is a number of the grid of a problem.
inline bool contains_zero(problem const& p) {
    bool found = p.has_zero();
    for (float const number : p.table()) {
        found = found || number == 0;
    }
    return found;
}

/// The problem for a grid, a granularity and a range: which numbers exist, who shares a scale, how it is chosen.
template <Grid G, Granularity P, RangeFor<G> R> class problem_of final : public problem {
public:
    /// @throws error where a user's grid breaks its promises (`check_grid`), or scales cannot have such a unit.
    explicit problem_of(G grid, P granularity = {}, R range = {}, scale_format format = {})
        : problem(about_of(grid, format)), grid_(grid), rounder_(grid), granularity_(granularity), range_(range) {}

    extents tile(extents shape) const override {
        extents const tile = granularity_.tile(shape);
        if (shape.size() > 0 && !(tile.rows > 0 && tile.cols > 0)) {
            raise(error("granularity", "makes tiles of " + std::to_string(tile.rows) + " x " +
                                           std::to_string(tile.cols) + " weights"));
        }
        return tile;
    }

    tile_scale fit(matrix_view weights, tile_place place) const override {
        return fit_at(range_, grid_, weights, format(), place);
    }

    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        rounder_(n, weights, scales, zeros, codes, numbers);
    }

    std::unique_ptr<problem const> with_unit_of(matrix_view w) const override {
        if (!format().has_unit()) {
            return {};
        }
        return std::make_unique<problem_of>(grid_, granularity_, range_, with_unit(grid_, w, format()));
    }

private:
    static about about_of(G const& grid, scale_format format) {
        check_grid(grid);
        expect_unit(format);
        auto const table = table_of(grid);
        return {.format = format,
                .has_zero = AffineGrid<G>,
                .placed = PlacedRangeFor<R, G>,
                .split = split_of(grid),
                .numbers = numbers_of(grid),
                .table = {table.begin(), table.end()}};
    }

    G grid_;
    rounder<G> rounder_;
    P granularity_;
    R range_;
};

/// Another problem with the scales given: those of a solution for weights of the same shape, whose tiles they keep also
/// where a solver takes columns away. Both outlive it.
class with_scales final : public problem {
public:
    with_scales(problem const& p, solution const& s) : problem(p, true), problem_(p), given_(s) {}

    extents tile(extents) const override { return given_.tile; }
    std::vector<std::int32_t> tile_of(index_t) const override { return given_.tile_of; }
    tile_scale fit(matrix_view, tile_place place) const override { return given_.scale_at(place.row, place.col); }
    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        problem_.round(n, weights, scales, zeros, codes, numbers);
    }

private:
    problem const& problem_;
    solution const& given_;
};

/// Another problem for some of the columns of its weights. Where scales depend on the place, each column keeps the tile
/// it has among all; else tiles count the columns that are there. The other problem and the columns outlive it.
class for_columns final : public problem {
public:
    /// For `columns`, ascending, of weights of this shape.
    for_columns(problem const& p, extents shape, std::vector<std::int32_t> const& columns)
        : problem(p), problem_(p), shape_(shape), columns_(columns) {
        auto const all = p.formats();
        if (all.size() > 1) {
            formats_.reserve(all.size());
            for (problem const* format : all) {
                formats_.emplace_back(*format, shape, columns);
            }
        }
    }

    extents tile(extents shape) const override { return problem_.tile(placed() ? shape_ : shape); }

    std::vector<std::int32_t> tile_of(index_t cols) const override {
        std::vector<std::int32_t> tiles;
        if (placed() && cols > 0) {
            auto const among_all = problem_.tile_of(shape_.cols);
            index_t const width = problem_.tile(shape_).cols;
            tiles = columns_;
            for (auto& tile : tiles) { // until now the column
                tile = among_all.empty() ? static_cast<std::int32_t>(tile / width)
                                         : among_all[static_cast<std::size_t>(tile)];
            }
        }
        return tiles;
    }

    tile_scale fit(matrix_view weights, tile_place place) const override {
        index_t const column = columns_[static_cast<std::size_t>(place.col)];
        return problem_.fit(weights, {place.row, placed() ? first_of_tile(column) : column});
    }

    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        problem_.round(n, weights, scales, zeros, codes, numbers);
    }

    std::vector<problem const*> formats() const override {
        if (formats_.empty()) {
            return problem::formats();
        }
        std::vector<problem const*> all(formats_.size());
        for (std::size_t f = 0; f < all.size(); ++f) {
            all[f] = &formats_[f];
        }
        return all;
    }

private:
    /// The first column, among all, of the tile that `column` has there, which may be none of those that are left.
    index_t first_of_tile(index_t column) const {
        auto const tiles = problem_.tile_of(shape_.cols);
        if (tiles.empty()) {
            index_t const width = problem_.tile(shape_).cols;
            return column / width * width;
        }
        return std::lower_bound(tiles.begin(), tiles.end(), tiles[static_cast<std::size_t>(column)]) - tiles.begin();
    }

    problem const& problem_;
    extents shape_; // of all weights
    std::vector<std::int32_t> const& columns_;
    std::vector<for_columns> formats_;
};

/// A choice of problems that differ in their grids, which a search by the output's error makes; until then the first.
class open_format final : public problem {
public:
    /// At least one; all have the same granularity and numbers of equal bits. @throws error when there is none.
    explicit open_format(std::vector<std::unique_ptr<problem const>> formats)
        : problem(first_of(formats)), formats_(std::move(formats)) {}

    extents tile(extents shape) const override { return formats_.front()->tile(shape); }
    tile_scale fit(matrix_view weights, tile_place place) const override {
        return formats_.front()->fit(weights, place);
    }
    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        formats_.front()->round(n, weights, scales, zeros, codes, numbers);
    }

    std::vector<problem const*> formats() const override {
        std::vector<problem const*> all(formats_.size());
        for (std::size_t f = 0; f < all.size(); ++f) {
            all[f] = formats_[f].get();
        }
        return all;
    }

    std::unique_ptr<problem const> with_unit_of(matrix_view w) const override {
        if (!format().has_unit()) {
            return {};
        }
        std::vector<std::unique_ptr<problem const>> all(formats_.size());
        for (std::size_t f = 0; f < all.size(); ++f) {
            all[f] = formats_[f]->with_unit_of(w);
        }
        return std::unique_ptr<problem const>(new open_format(std::move(all)));
    }

private:
    static problem const& first_of(std::vector<std::unique_ptr<problem const>> const& formats) {
        if (formats.empty()) {
            raise(error("format search", "has no format to choose from"));
        }
        return *formats.front();
    }

    std::vector<std::unique_ptr<problem const>> formats_;
};

} // namespace detent::inline DETENT_ABI
