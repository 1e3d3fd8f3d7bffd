// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/scale/range.hpp"

namespace detent::inline DETENT_ABI {

/// A range known only at run time, for one grid. It is empty where `any_grid::lay` over the smallest and the largest
/// number says the same: for `minmax_range` and a grid with zero points, and for `absmax_range` and a grid without.
/// Copies share what they hold; const uses may happen at once in several threads.
class any_range {
public:
    any_range() = default;
    template <Grid G, RangeFor<G> R> any_range(G grid, R range) {
        bool const whole = AffineGrid<G> ? std::same_as<R, minmax_range> : std::same_as<R, absmax_range>;
        if (!whole) {
            held_ = std::make_shared<of<G, R> const>(std::move(grid), std::move(range));
        }
    }

    bool empty() const { return held_ == nullptr; }

    /// The scale of a tile that begins at `place`, stored as `format`; the range is not empty.
    tile_scale fit(matrix_view tile, scale_format format, tile_place place) const {
        return held_->fit(tile, format, place);
    }

    /// Whether both are the same range for the same grid.
    friend bool operator==(any_range const& a, any_range const& b) {
        bool const same_type = a.held_ && b.held_ && a.held_->type() == b.held_->type();
        return a.held_ == b.held_ || (same_type && a.held_->equals(*b.held_));
    }

private:
    struct anything {
        virtual ~anything() = default;
        virtual tile_scale fit(matrix_view tile, scale_format format, tile_place place) const = 0;
        virtual void const* type() const = 0; ///< an address for each type: programs may have no dynamic_cast
        virtual bool equals(anything const& other) const = 0; ///< which must have the same type
    };

    template <class G, class R> struct of final : anything {
        of(G its_grid, R its_range) : grid(std::move(its_grid)), range(std::move(its_range)) {}
        tile_scale fit(matrix_view tile, scale_format format, tile_place place) const override {
            return fit_at(range, grid, tile, format, place);
        }
        void const* type() const override {
            static char const here = 0;
            return &here;
        }
        bool equals(anything const& other) const override {
            auto const& same = static_cast<of const&>(other);
            return same.grid == grid && same.range == range;
        }

        G grid;
        R range;
    };

    std::shared_ptr<anything const> held_;
};

} // namespace detent::inline DETENT_ABI
