// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/truncated.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::error_of;
using test::random_matrix;
using test::row_of;

static_assert(RangeFor<truncated_range, int_grid<4>> && RangeFor<truncated_range, int_grid<1>> &&
              RangeFor<truncated_range, int_grid<4, zero::none>> && RangeFor<truncated_range, e2m1> &&
              RangeFor<truncated_range, nf4> && RangeFor<truncated_range, test::powers_of_two>);

/// The scales and zero points of OWQ's search.
template <Grid G> std::vector<tile_scale> candidates(G const& grid, int steps, matrix const& w, scale_format format) {
    double low = std::min(0.0F, w.minCoeff());
    double high = std::max(0.0F, w.maxCoeff());
    if (low == 0 && high == 0) {
        low = -1;
        high = 1;
    }
    std::vector<tile_scale> list;
    for (int i = 1; i <= steps; ++i) {
        if constexpr (AffineGrid<G>) {
            auto const scale = static_cast<float>((high - low) * i / steps / double{grid.highest()});
            for (float zero = 0; zero <= grid.highest(); ++zero) {
                list.push_back({store(format, scale), zero});
            }
        } else {
            auto const scale = static_cast<float>(std::max(-low, high) * i / steps / -double{grid.lowest()});
            list.push_back({store(format, scale), 0});
        }
    }
    return list;
}

template <Grid G>
void expect_best_candidate(G const& grid, truncated_range const& range, matrix const& w, scale_format format = {}) {
    double least = std::numeric_limits<double>::infinity();
    for (tile_scale const s : candidates(grid, range.steps, w, format)) {
        least = std::min(least, error_of(grid, w, s, range.norm));
    }
    tile_scale const found = range.fit(grid, w, format);
    // Floats that differ in their last bits have a rounding error of their own.
    double const rounding = static_cast<double>(w.size()) * std::pow(4e-7 * w.cwiseAbs().maxCoeff(), range.norm);
    EXPECT_LE(error_of(grid, w, found, range.norm), least * (1 + 1e-4) + rounding) << w.size() << ", " << range.steps;
    EXPECT_EQ(found.scale, store(format, found.scale));
    EXPECT_TRUE(found.zero >= 0 && found.zero < 256 && found.zero == std::nearbyint(found.zero));
}

template <Grid G> void expect_best_candidates(G const& grid, truncated_range const& range) {
    std::mt19937 random(5);
    std::student_t_distribution<float> heavy(2);
    for (index_t const size : {1, 2, 15, 16, 33, 100, 128, 300}) {
        auto const seed = static_cast<unsigned>(size);
        matrix const normal = random_matrix(1, size, seed);
        expect_best_candidate(grid, range, normal);
        expect_best_candidate(grid, range, normal.array() + 1.5F);
        expect_best_candidate(grid, range, -0.01F * (normal.array() + 6), float_format::bf16);
        expect_best_candidate(grid, range, matrix::NullaryExpr(1, size, [&] { return heavy(random); }),
                              float_format::f32);
        expect_best_candidate(grid, range, normal, scale_kind::e8m0);
        expect_best_candidate(grid, range, normal, {scale_kind::ue4m3, 0.01F});
        expect_best_candidate(grid, range, matrix::Constant(1, size, 0.3F));
        expect_best_candidate(grid, range, matrix::Constant(1, size, -0.3F));
        expect_best_candidate(grid, range, matrix::Zero(1, size));
    }
    expect_best_candidate(grid, range, random_matrix(3, 37, 9));
}

TEST(truncated_range, finds_the_best_of_all_widths_and_zero_points) {
    expect_best_candidates(int_grid<1>{}, {});
    expect_best_candidates(int_grid<2>{}, {.steps = 40});
    expect_best_candidates(int_grid<3>{}, {});
    expect_best_candidates(int_grid<3>{}, {.norm = 2, .steps = 33});
    expect_best_candidates(int_grid<4>{}, {.steps = 40});
    expect_best_candidates(int_grid<4>{}, {.norm = 1, .steps = 5});
    expect_best_candidates(int_grid<8>{}, {.steps = 9});
}

TEST(truncated_range, finds_the_best_width_without_a_zero_point) {
    expect_best_candidates(int_grid<1, zero::none>{}, {.steps = 40});
    expect_best_candidates(int_grid<2, zero::none>{}, {});
    expect_best_candidates(int_grid<3, zero::none>{}, {});
    expect_best_candidates(int_grid<4, zero::none>{}, {.norm = 2, .steps = 40});
    expect_best_candidates(int_grid<8, zero::none>{}, {});
    expect_best_candidates(e2m1{}, {});
    expect_best_candidates(nf4{}, {.steps = 40});
    expect_best_candidates(ternary{}, {});
    expect_best_candidates(test::powers_of_two{}, {});
}

TEST(truncated_range, finds_the_best_for_a_long_row) {
    matrix w = random_matrix(1, 5001, 1);
    expect_best_candidate(int_grid<3>{}, {}, w);
    w(0, 77) = 20; // an outlier that is not worth its codes
    expect_best_candidate(int_grid<3>{}, {}, w);
    EXPECT_LT(truncated_range{}.fit(int_grid<3>{}, w, float_format::f16).scale, 2); // 20 is more than 7 of them
}

TEST(truncated_range, is_better_than_the_search_over_the_width_alone) {
    double searched = 0;
    double shrunk = 0;
    double whole = 0;
    for (unsigned seed = 0; seed < 10; ++seed) {
        matrix w = random_matrix(1, 512, seed);
        w(0, 3) = 12; // on one side
        int_grid<3> const grid;
        double const all = error_of(grid, w, minmax_range{}.fit(grid, w, float_format::f16), 2.4);
        double const best = error_of(grid, w, truncated_range{}.fit(grid, w, float_format::f16), 2.4);
        EXPECT_LE(best, all * (1 + 1e-4));
        searched += best;
        shrunk += error_of(grid, w, mse_range{}.fit(grid, w, float_format::f16), 2.4);
        whole += all;
    }
    EXPECT_LT(searched, 0.99 * shrunk);
    EXPECT_LT(shrunk, 0.9 * whole);
}

TEST(truncated_range, among_equals_the_whole_range_wins) {
    truncated_range const range;
    auto const f16 = float_format::f16;
    matrix const zeros = matrix::Zero(2, 3);
    EXPECT_EQ(range.fit(int_grid<4>{}, zeros, f16), minmax_range{}.fit(int_grid<4>{}, zeros, f16));
    EXPECT_EQ(range.fit(nf4{}, zeros, f16), absmax_range{}.fit(nf4{}, zeros, f16));
    matrix const integers = 0.25F * row_of({-4, 11, 0, 1, -2, 7});
    EXPECT_EQ(range.fit(int_grid<4>{}, integers, f16), (tile_scale{0.25F, 4}));
    EXPECT_EQ(range.fit(int_grid<3, zero::none>{}, row_of({-1, 0.5F}), f16), (tile_scale{0.25F, 0}));
    EXPECT_EQ(range.fit(int_grid<2>{}, row_of({3}), f16), (tile_scale{1, 0}));
    EXPECT_EQ(range.fit(int_grid<2>{}, row_of({-3}), f16), (tile_scale{1, 3}));
}

TEST(truncated_range, where_no_error_is_finite_the_whole_range_stays) {
    matrix const w = row_of({-3e30F, 1e30F, 2e30F, 2.5e30F});
    EXPECT_EQ(truncated_range{}.fit(int_grid<2>{}, w, float_format::f16),
              minmax_range{}.fit(int_grid<2>{}, w, float_format::f16));
}

TEST(truncated_range, options_are_checked) {
    matrix const w = random_matrix(1, 20, 1);
    auto const message = [&](truncated_range range) {
        return failure_message([&] { range.fit(int_grid<4>{}, w, float_format::f16); });
    };
    EXPECT_EQ(message({.norm = -1}), "truncated_range: its norm is -1.000000, not from 1 to 1000");
    EXPECT_EQ(message({.steps = -3}), "truncated_range: its number of steps is -3, not positive");
}

} // namespace
