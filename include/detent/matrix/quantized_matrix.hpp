// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <utility>

#include "detent/core/error.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/solution.hpp"

namespace detent::inline DETENT_ABI {

/// A packed matrix whose grid and granularity are part of its type. It has forgotten which solver chose its codes.
template <class G, Granularity P> class quantized_matrix {
public:
    using grid_type = G;
    using granularity_type = P;

    /// @throws error when the solution has not the zero points and tiles that the types say, as products rely on them.
    quantized_matrix(G grid, P granularity, solution const& s)
        : grid_(grid), granularity_(granularity), packed_(pack(s)), report_(s.report) {
        constexpr index_t cols = cols_in_type<P>;
        bool const whole_rows = s.tile.cols >= s.shape.cols;
        bool fits = true;
        if constexpr (cols == 0) {
            fits = whole_rows;
        } else if constexpr (cols != dynamic) {
            fits = whole_rows || s.tile.cols % cols == 0;
        }
        if (!fits) {
            raise(error("solution", "has tiles that are not those of the granularity"));
        }
        if (s.shape.size() > 0 && s.scales.zeros.empty() == AffineGrid<G>) {
            raise(error("solution", AffineGrid<G> ? "lacks the zero points of the grid"
                                                  : "has zero points that the grid does not have"));
        }
    }

    G const& grid() const { return grid_; }
    P const& granularity() const { return granularity_; }
    extents shape() const { return packed_.shape(); }
    packed_view view() const { return packed_.view(); }
    double bits_per_weight() const { return packed_.bits_per_weight(); }

    /// The weight at `row` and input `col`. Where inputs are mapped it takes as long as decoding the row. @throws error
    /// when there is none.
    float at(index_t row, index_t col) const {
        expect_valid(row >= 0 && row < shape().rows && col >= 0 && col < shape().cols, "weights", "have no such place");
        return packed_.map.empty() ? packed_.stored_at(row, col) : dequantize_rows(packed_, row, row + 1)(0, col);
    }

    /// The same matrix with its grid known only at run time.
    packed_matrix const& packed() const& { return packed_; }
    packed_matrix&& packed() && { return std::move(packed_); }

    /// What the solver reported.
    solve_report const& report() const { return report_; }

private:
    G grid_;
    P granularity_;
    packed_matrix packed_;
    solve_report report_;
};

} // namespace detent::inline DETENT_ABI
