// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <concepts>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/default_range.hpp"
#include "grid/own_grid.hpp"
#include "nn/random_matrix.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;

template <class G, class R> constexpr bool has_default = std::same_as<default_range<G>, R>;
static_assert(has_default<int_grid<4>, minmax_range> && has_default<int_grid<1>, minmax_range> &&
              has_default<test::half_up, minmax_range>);
static_assert(has_default<int_grid<4, zero::none>, absmax_range> &&
              has_default<int_grid<2, zero::none>, absmax_range> && has_default<e2m1, absmax_range> &&
              has_default<fp_grid<1, 0>, absmax_range> && has_default<ternary, absmax_range> &&
              has_default<test::powers_of_two, absmax_range>);
static_assert(has_default<int_grid<1, zero::none>, least_squares_range> &&
              has_default<test::uneven_pair, least_squares_range>);

/// |w - decoded w| / |w|.
template <Grid G> double relative_error(G const& grid, matrix const& w) {
    tile_scale const s = default_range<G>{}.fit(grid, w, float_format::f16);
    return std::sqrt(test::error_of(grid, w, s, 2) / w.squaredNorm());
}

TEST(default_range, is_better_than_rounding_all_to_0) {
    matrix const gaussian = test::random_matrix(1, 4096, 1);
    auto const expect = [&](auto const& grid) {
        EXPECT_LT(relative_error(grid, gaussian), 1);
    };
    expect(int_grid<1, zero::none>{});
    expect(test::uneven_pair{});
    expect(int_grid<2>{});
    expect(ternary{});
    expect(e2m1{});
    expect(test::powers_of_two{});
    matrix outlier = gaussian;
    outlier(0, 17) = 200; // which a search over parts of the largest weight would not get away from
    EXPECT_LT(relative_error(int_grid<1, zero::none>{}, outlier), 1);
    EXPECT_LT(relative_error(test::uneven_pair{}, outlier), 1);
}

} // namespace
