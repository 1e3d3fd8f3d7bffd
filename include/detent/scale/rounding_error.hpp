// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/scale/range.hpp"
#include "detent/scale/rounder.hpp"

namespace detent::inline DETENT_ABI {

/// The error of rounding a tile with one scale after the other, for ranges that search for the best one. Only the sum
/// over some weights knows the grid, so that a search is compiled once for all grids.
template <class Scalar> class basic_tile_error {
public:
    virtual ~basic_tile_error() = default;

    /// The sum of |x - decoded x|^norm over the weights x, or some number of at least `limit` if it is not below that.
    float operator()(tile_scale s, float limit) {
        float total = 0;
        index_t i = 0;
        while (i < large_ && total < limit) {
            total += next_block(i, large_, s);
        }
        if (clips_others(s)) {
            while (i < size() && total < limit) {
                total += next_block(i, size(), s);
            }
            return total;
        }
        // Where nothing is clipped the error does not depend on the zero point.
        if (s.scale != shared_scale_) {
            shared_scale_ = s.scale;
            shared_ = 0;
            shared_end_ = large_;
        }
        while (shared_end_ < size() && total + shared_ < limit) {
            shared_ += next_block(shared_end_, size(), s);
        }
        return total + shared_;
    }

    /// What the numbers of a grid must span for an error below `limit`: if they do not, the largest weights alone are
    /// clipped by more than that.
    interval needed(float limit) const {
        auto const end = [&](outliers const& side) { // from count (least - end)^norm = limit
            return std::max(0.0F, side.least - std::pow(limit / side.count, 1 / norm_));
        };
        return {-end(low_), end(high_)};
    }

    /// The lowest and the highest number of the grid.
    interval numbers() const { return numbers_; }

    /// The last zero point: 0 where the grid has none, else its highest number.
    float last_zero() const { return has_zero_ ? numbers_.high : 0; }

protected:
    /// For the weights of `tile` and a grid with these numbers.
    basic_tile_error(interval numbers, bool has_zero, basic_matrix_view<Scalar> tile, float norm)
        : numbers_(numbers), has_zero_(has_zero), norm_(norm), weights_(entries_of(tile)), large_(size() / 8) {
        // The largest weights first: a scale that clips them too much is then given up early. So the largest eighth,
        // in front of it the largest eighth of that, and so on.
        auto end = weights_.end();
        for (index_t n = large_; n > 0; n /= 8) {
            auto const nth = weights_.begin() + n;
            std::nth_element(weights_.begin(), nth, end, [](Scalar a, Scalar b) { return std::abs(a) > std::abs(b); });
            end = nth;
        }
        for (index_t i = 0; i < large_ / 8; ++i) {
            Scalar const x = weights_[static_cast<std::size_t>(i)];
            outliers& side = x < 0 ? low_ : high_;
            ++side.count;
            side.least = std::min(side.least, std::abs(x));
        }
    }

private:
    index_t size() const { return std::ssize(weights_); }

    /// Some of the largest weights of one sign: how many, and the smallest absolute value.
    struct outliers {
        float count = 0;
        float least = std::numeric_limits<float>::max();
    };

    /// The error of the weights from `begin` on, some of them; `begin` moves past them.
    float next_block(index_t& begin, index_t end, tile_scale s) const {
        index_t const n = std::min(end - begin, std::clamp<index_t>(begin, 16, 256));
        begin += n;
        return sum(n, weights_.data() + begin - n, s, norm_);
    }

    /// Whether any weights but the large ones may be clipped, or rounded otherwise with another zero point.
    bool clips_others(tile_scale s) const {
        float const reach = std::min(s.zero - numbers_.low, numbers_.high - s.zero) + 0.5F;
        return !has_zero_ || large_ == 0 ||
               std::abs(weights_[static_cast<std::size_t>(large_)]) > reach * s.scale; // the largest of the others
    }

    /// The sum of |x - decoded x|^norm over `n` weights x.
    virtual float sum(index_t n, Scalar const* weights, tile_scale s, float norm) const = 0;

    interval numbers_;
    bool has_zero_;
    float norm_;
    std::vector<Scalar> weights_;
    index_t large_;
    outliers low_;
    outliers high_;
    float shared_scale_ = 0; // with it the weights from large_ to shared_end_ have the error shared_
    float shared_ = 0;
    index_t shared_end_ = 0;
};

using tile_error = basic_tile_error<float>;

/// The same for one grid.
template <Grid G> class rounding_error final : public tile_error {
public:
    /// For the weights of `tile`, and errors to the power of `norm`, at least 1.
    rounding_error(G const& grid, matrix_view tile, float norm)
        : tile_error({grid.lowest(), grid.highest()}, AffineGrid<G>, tile, norm), round_(grid) {}

private:
    float sum(index_t n, float const* weights, tile_scale s, float norm) const override {
        return round_.error(n, weights, s, norm);
    }

    rounder<G> round_;
};

} // namespace detent::inline DETENT_ABI
