// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/learned_clip.hpp"
#include "detent/scale/scale_format.hpp"

namespace detent::inline DETENT_ABI {

/// Rounds the numbers of a matrix to a grid, laid over the range of so many columns of each row, and carries gradients
/// back through that: rounding counts as adding a constant (the straight-through estimator), as does the choice of the
/// zero point; clipping and the dependence of the scale on the extreme numbers of a tile are differentiated exactly.
/// Serves weights, by rows or groups, and activations, by tokens or heads.
template <class Scalar> class fake_quantizer {
public:
    /// `width` columns share a scale, or all of a row where that is 0; there may be fewer in the last tile. In float a
    /// scale is what `format` stores.
    fake_quantizer(any_grid grid, index_t width, scale_format format = float_format::f32)
        : grid_(std::move(grid)), width_(width), format_(format), reach_(reach_of(grid_.table())) {
        expect_valid(width >= 0, "fake_quantizer", "has groups of a negative width");
    }

    any_grid const& grid() const { return grid_; }
    scale_format format() const { return format_; }
    /// Columns of a tile and tiles in a row of so many columns.
    index_t width(index_t columns) const { return width_ > 0 ? std::min(width_, columns) : columns; }
    index_t tiles_of(index_t columns) const { return columns > 0 ? ceil_div(columns, width(columns)) : 0; }

    /// How each tile of a matrix was rounded, (row, tile).
    struct tiles {
        basic_matrix<Scalar> scale;
        basic_matrix<Scalar> zero;
        basic_matrix<std::int32_t> lowest;  ///< column of the smallest
        basic_matrix<std::int32_t> highest; ///< and largest number, of equal ones the first
    };

    /// The rounded numbers for `x`, in its shape; `how` is for `backward`. Where `clip` is given, ranges are clipped.
    template <class X>
    basic_matrix<Scalar> forward(Eigen::MatrixBase<X> const& numbers, learned_clip<Scalar> const* clip, tiles& how,
                                 executor_ref executor = {}) const {
        stopwatch::section const timed(executor.watch(), work_kind::rounding);
        basic_matrix_view<Scalar> const x(numbers);
        index_t const width = this->width(x.cols()), across = tiles_of(x.cols());
        expect_valid(clip == nullptr || shape_of(clip->low) == (extents{x.rows(), across}), "fake_quantizer",
                     "has clips for another number of tiles");
        how.scale.resize(x.rows(), across);
        how.zero.resize(x.rows(), across);
        how.lowest.resize(x.rows(), across);
        how.highest.resize(x.rows(), across);
        basic_matrix<Scalar> y(x.rows(), x.cols());
        executor.for_pieces(x.rows(), rows_of_piece, [&](index_t begin, index_t end) {
            std::vector<code> codes(static_cast<std::size_t>(width));
            Eigen::RowVectorXf ratio(std::ssize(codes)), rounded(std::ssize(codes));
            for (index_t row = begin; row < end; ++row) {
                for (index_t tile = 0; tile < across; ++tile) {
                    index_t const col = tile * width;
                    index_t const n = std::min(width, x.cols() - col);
                    auto const part = x.row(row).segment(col, n);
                    auto const [s, z] = lay(part, row, tile, col, clip, how);
                    if constexpr (std::is_same_v<Scalar, float>) {
                        grid_.round(n, part.data(), {s, z}, codes.data(), &y(row, col));
                    } else {
                        ratio.head(n) = (part / s).template cast<float>();
                        grid_.round(n, ratio.data(), {1, static_cast<float>(z)}, codes.data(), rounded.data());
                        y.row(row).segment(col, n) = s * rounded.head(n).template cast<Scalar>();
                    }
                }
            }
        });
        return y;
    }

    /// The gradient with respect to `x`, given that with respect to the rounded numbers `y`, `g`; all have the shape of
    /// x. That with respect to the clipping is added to `clip_gradient` where `clip` is given.
    basic_matrix<Scalar> backward(basic_matrix_view<Scalar> x, basic_matrix_view<Scalar> y, basic_matrix<Scalar> g,
                                  tiles const& how, learned_clip<Scalar> const* clip = nullptr,
                                  learned_clip<Scalar>* clip_gradient = nullptr, executor_ref executor = {}) const {
        expect_valid(shape_of(x) == shape_of(y) && shape_of(x) == shape_of(g), "fake_quantizer",
                     "has a gradient or result of another shape");
        expect_valid((clip == nullptr) == (clip_gradient == nullptr), "fake_quantizer",
                     "has clips without their gradient, or a gradient without clips");
        stopwatch::section const timed(executor.watch(), work_kind::rounding);
        index_t const width = this->width(x.cols());
        Scalar const steps = static_cast<Scalar>(grid_.numbers().high) - static_cast<Scalar>(grid_.numbers().low);
        executor.for_pieces(x.rows(), rows_of_piece, [&](index_t begin, index_t end) {
            for (index_t row = begin; row < end; ++row) {
                for (index_t tile = 0; tile < how.scale.cols(); ++tile) {
                    index_t const col = tile * width;
                    index_t const n = std::min(width, x.cols() - col);
                    Scalar const s = how.scale(row, tile), z = how.zero(row, tile);
                    Scalar const from = s * (static_cast<Scalar>(reach_.low) - z);
                    Scalar const to = s * (static_cast<Scalar>(reach_.high) - z);
                    // y = x + s r where x is rounded, with its residual r, and s k where it is clipped to number k.
                    Scalar scale_gradient = 0; // times s
                    for (index_t i = col; i < col + n; ++i) {
                        bool const inside = x(row, i) >= from && x(row, i) <= to;
                        scale_gradient += g(row, i) * (inside ? y(row, i) - x(row, i) : y(row, i));
                        g(row, i) = inside ? g(row, i) : Scalar(0);
                    }
                    // s steps = high - low, or twice the farther of both from 0.
                    Scalar const per_width = scale_gradient / (s * steps);
                    std::int32_t const lowest = how.lowest(row, tile), highest = how.highest(row, tile);
                    Scalar const least = x(row, lowest), most = x(row, highest);
                    auto const slopes =
                        slopes_of_range(per_width, least, most, clip ? clip->kept_low(row, tile) : Scalar(1),
                                        clip ? clip->kept_high(row, tile) : Scalar(1), grid_.has_zero());
                    g(row, highest) += slopes.highest;
                    g(row, lowest) += slopes.lowest;
                    if (clip) {
                        clip_gradient->high(row, tile) += slopes.clip_high;
                        clip_gradient->low(row, tile) += slopes.clip_low;
                    }
                }
            }
        });
        return g;
    }

private:
    static constexpr index_t rows_of_piece = 16;

    struct scale_and_zero {
        Scalar scale, zero;
    };

    /// The scale and the zero point of a tile of a row; 0 is in every range, and a tile of zeros has the range that
    /// `interval::of` says.
    template <class Part>
    scale_and_zero lay(Part const& part, index_t row, index_t tile, index_t col, learned_clip<Scalar> const* clip,
                       tiles& how) const {
        index_t lowest = 0, highest = 0;
        Scalar low = std::min(Scalar(0), part.minCoeff(&lowest));
        Scalar high = std::max(Scalar(0), part.maxCoeff(&highest));
        if (low == 0 && high == 0) {
            low = contains_zero(grid_) ? -1 : 0;
            high = -low;
        } else if (clip) {
            low *= clip->kept_low(row, tile);
            high *= clip->kept_high(row, tile);
        }
        interval const numbers = grid_.numbers();
        Scalar const span = grid_.has_zero() ? high - low : 2 * std::max(high, -low);
        Scalar s = 0;
        if constexpr (std::is_same_v<Scalar, float>) {
            s = scale_over(numbers, span, format_);
        } else {
            s = span / (static_cast<Scalar>(numbers.high) - static_cast<Scalar>(numbers.low));
            s = std::max<Scalar>(s, limits_of(format_).smallest);
        }
        Scalar const z = grid_.has_zero() ? std::clamp(std::nearbyint(-low / s), static_cast<Scalar>(numbers.low),
                                                       static_cast<Scalar>(numbers.high))
                                          : Scalar(0);
        how.scale(row, tile) = s;
        how.zero(row, tile) = z;
        how.lowest(row, tile) = static_cast<std::int32_t>(col + lowest);
        how.highest(row, tile) = static_cast<std::int32_t>(col + highest);
        return {s, z};
    }

    any_grid grid_;
    index_t width_;
    scale_format format_;
    interval reach_; // what is rounded, for scale 1 and zero point 0
};

} // namespace detent::inline DETENT_ABI
