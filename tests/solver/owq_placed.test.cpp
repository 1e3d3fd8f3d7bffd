// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/searched.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/two_groups.hpp"

// Weak columns where scales depend on where a tile lies: every column keeps the tile it has among all.

namespace {

using namespace detent;
using test::correlated_inputs;
using test::nearest;
using test::random_matrix;
using test::two_groups;

TEST(owq_placed, decodes_every_column_with_the_scale_of_its_own_group) {
    two_groups const l;
    quantizer<int_grid<3>, per_group<16>, owq<rtn>, given_range> const q{.solver = {.columns = 2, .compensate = false},
                                                                         .range = l.given};
    packed_matrix const packed = q(l.w, l.known).packed();
    EXPECT_EQ(packed.weak.columns(), (std::vector<std::int32_t>{0, 1}));
    EXPECT_TRUE(packed.map.empty());
    EXPECT_EQ(packed.scales, l.given.scales);
    matrix const numbers = dequantize(packed);
    double moved = 0;
    for (index_t row = 0; row < 24; ++row) {
        for (index_t col = 2; col < 32; ++col) {
            ASSERT_EQ(numbers(row, col), nearest(l, row, col)) << "row " << row << ", column " << col;
            moved += (numbers(row, col) - l.w(row, col)) * (numbers(row, col) - l.w(row, col));
        }
    }
    // With the scales of their neighbours, the first two columns of the second group would be rounded to a hundredth.
    EXPECT_LT(std::sqrt(moved), 0.25 * l.w.norm());
    EXPECT_LT(l.relative_error(packed), 0.01);

    // Other solvers inside lose less.
    auto const expect_better = [&](auto const& solver) {
        quantizer<int_grid<3>, per_group<16>, std::remove_cvref_t<decltype(solver)>, given_range> const other{
            .solver = solver, .range = l.given};
        packed_matrix const better = other(l.w, l.known).packed();
        EXPECT_EQ(better.weak.columns(), packed.weak.columns());
        EXPECT_EQ(better.scales, l.given.scales);
        EXPECT_LT(l.relative_error(better), l.relative_error(packed));
    };
    expect_better(owq<rtn>{.columns = 2});
    expect_better(owq<>{.columns = 2});
    expect_better(owq<>{.inner = {.activation_order = true}, .columns = 2});
    expect_better(owq<obq>{.columns = 2});
}

TEST(owq_placed, learned_clips_stay_with_their_groups) {
    two_groups const l;
    problem_of const p{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    clipped<owq<gptq<>>> const solver{.inner = {.columns = 2}};
    solution const s = solver.solve(l.w, l.known, p);
    EXPECT_EQ(s.weak.count(), 2);
    EXPECT_LT(l.relative_error(pack(s)), 0.01);
    // Scales given by clips of the whole matrix lose little, too.
    solution const learned = learn_clips(l.w, symmetric_floats(l.known.hessian().sum()), p, {});
    solution const in_place = owq<>{.columns = 2}.solve(l.w, l.known, with_scales(p, learned));
    EXPECT_EQ(in_place.scales, learned.scales);
    EXPECT_LT(l.relative_error(pack(in_place)), 0.01);
    for (index_t row = 0; row < 24; ++row) {
        EXPECT_GT(in_place.scale_at(row, 16).scale, 10 * in_place.scale_at(row, 15).scale);
    }
}

TEST(owq_placed, sensitivities_are_those_of_every_columns_own_scale) {
    two_groups const l;
    hessian const& h = l.known;
    problem_of const p{int_grid<3>{}, per_group<16>{}, l.given};
    basic_vector<double> const found = sensitivities(l.w, h, p, sensitivity::output_error);
    for (index_t col = 0; col < 32; ++col) {
        double errors = 0;
        for (index_t row = 0; row < 24; ++row) {
            errors += std::pow(double{l.w(row, col)} - double{nearest(l, row, col)}, 2);
        }
        EXPECT_NEAR(found(col), h(col, col) * errors, 1e-6 * h(col, col) * errors) << col;
    }
}

/// A user's range that remembers what it was asked: where a tile begins, and what is in it.
struct asking_range {
    struct question {
        tile_place place;
        matrix tile;
    };
    struct notes {
        std::mutex mutex;
        std::vector<question> all;
    };
    std::shared_ptr<notes> asked = std::make_shared<notes>();

    template <Grid G> tile_scale fit(G const& grid, matrix_view tile, scale_format format, tile_place place) const {
        std::scoped_lock const lock(asked->mutex);
        asked->all.push_back({place, matrix(tile)});
        return minmax_range{}.fit(grid, tile, format);
    }

    friend bool operator==(asking_range const&, asking_range const&) = default;
};
static_assert(PlacedRangeFor<asking_range, int_grid<3>>);

/// Every tile is asked for where it truly begins, and holds the columns of that place, without those in `taken`.
void expect_true_places(asking_range const& range, matrix const& w, extents tile,
                        std::vector<std::int32_t> const& taken) {
    std::vector<bool> seen(static_cast<std::size_t>(ceil_div(w.rows(), tile.rows) * ceil_div(w.cols(), tile.cols)));
    for (auto const& [place, weights] : range.asked->all) {
        ASSERT_EQ(place.row % tile.rows, 0);
        ASSERT_EQ(place.col % tile.cols, 0);
        std::vector<std::int32_t> all;
        std::vector<std::int32_t> left;
        for (index_t c = place.col; c < std::min(place.col + tile.cols, w.cols()); ++c) {
            all.push_back(static_cast<std::int32_t>(c));
            if (std::ranges::find(taken, all.back()) == taken.end()) {
                left.push_back(all.back());
            }
        }
        matrix const rows = w.middleRows(place.row, std::min(tile.rows, w.rows() - place.row));
        bool const whole = weights.cols() == std::ssize(all);
        ASSERT_TRUE(whole || weights.cols() == std::ssize(left));
        EXPECT_EQ(weights, take_columns(rows, whole ? all : left)) << "row " << place.row << ", column " << place.col;
        seen[static_cast<std::size_t>(place.row / tile.rows * ceil_div(w.cols(), tile.cols) + place.col / tile.cols)] =
            true;
    }
    EXPECT_EQ(std::ranges::count(seen, false), 0);
}

template <class S> void expect_true_places(S const& solver, extents tile) {
    matrix const w = random_matrix(10, 50, 1);
    matrix x = correlated_inputs(300, 50, 2);
    x.col(7) *= 10;
    x.col(8) *= 10;
    asking_range const range;
    problem_of const p{int_grid<3>{}, per_tile{tile.rows, tile.cols}, range};
    solution const s = solve_with(solver, w, layer_inputs::of(x), p);
    expect_true_places(range, w, tile, s.weak.columns());
    EXPECT_TRUE(s.map.empty()) << "every column has stayed in its tile";
    EXPECT_EQ(s.tile, tile);
    // The scale of a tile is what the range answered last for its place.
    for (auto const& [place, weights] : range.asked->all) {
        if (std::ssize(s.weak.columns()) == 0 || weights.cols() < std::min(tile.cols, 50 - place.col)) {
            EXPECT_EQ(s.scale_at(place.row, place.col), minmax_range{}.fit(int_grid<3>{}, weights, float_format::f16));
        }
    }
}

TEST(owq_placed, a_users_range_is_asked_for_true_places) {
    for (extents const tile : {extents{1, 16}, {4, 8}, {3, 7}}) {
        expect_true_places(rtn{}, tile);
        expect_true_places(gptq<>{}, tile);
        expect_true_places(gptq<>{.activation_order = true}, tile);
        expect_true_places(obq{}, tile);
        expect_true_places(owq<rtn>{.columns = 3}, tile);
        expect_true_places(owq<>{.columns = 2}, tile);
        expect_true_places(owq<>{.inner = {.activation_order = true}, .columns = 9}, tile); // takes whole tiles away
        expect_true_places(owq<obq>{.columns = 2, .compensate = false}, tile);
    }
}

TEST(owq_placed, a_tile_of_weak_columns_only_has_a_scale_too) {
    matrix const w = random_matrix(6, 16, 1);
    matrix x = correlated_inputs(300, 16, 2);
    x.middleCols(4, 4) *= 1000;
    asking_range const range;
    problem_of const p{int_grid<3>{}, per_group<4>{}, range};
    layer_inputs const known = layer_inputs::of(x);
    auto const expect = [&](solution const& s) {
        EXPECT_EQ(s.weak.columns(), (std::vector<std::int32_t>{4, 5, 6, 7}));
        EXPECT_EQ(s.tile, (extents{1, 4}));
        EXPECT_EQ(s.scale_at(2, 5).scale, 1);
        double const error = known.hessian().quadratic(w - dequantize(pack(s)));
        EXPECT_LT(error, 0.1 * known.hessian().restricted_to({0, 1, 2, 3}).quadratic(w.leftCols(4)));
        return s;
    };
    EXPECT_EQ(expect(owq<>{.columns = 4}.solve(w, known.hessian(), p)).scale_at(2, 8),
              minmax_range{}.fit(int_grid<3>{}, w.block(2, 8, 1, 4), float_format::f16));
    expect(owq<obq>{.columns = 4}.solve(w, known.hessian(), p));
    expect(owq<searched<>>{.columns = 4}.solve(w, known, p));
    expect(owq<searched<>>{.inner = {.metric = output_metric::absolute}, .columns = 4}.solve(w, known, p));
}

} // namespace
