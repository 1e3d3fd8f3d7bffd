// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/activations.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/scale/mse.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

/// Tokens of different sizes.
matrix some_inputs() {
    matrix x = test::random_matrix(9, 40, 1);
    for (index_t t = 0; t < x.rows(); ++t) {
        x.row(t) *= 0.5F + static_cast<float>(t % 4);
    }
    return x;
}

/// `format` with the unit that gives the largest number of `seen` the largest scale, where there are units.
template <Grid G> scale_format in_units(G const& grid, matrix_view seen, scale_format format) {
    if (format.kind == scale_kind::ue4m3) {
        format.unit = seen.cwiseAbs().maxCoeff() / (0.5F * (grid.highest() - grid.lowest()) * 448);
    }
    return format;
}

/// Number by number: each group of `width` features has the scale that `range` fits to the token, or to all of `x`.
template <Grid G, class R>
void expect_numbers(activation_quantizer const& q, matrix_view x, G const& grid, R const& range, index_t width,
                    scale_format format, bool fixed) {
    matrix const rounded = q.round(x);
    ASSERT_EQ(q.fixed().empty(), !fixed);
    for (index_t t = 0; t < x.rows(); ++t) {
        matrix const seen = fixed ? matrix(x) : matrix(x.row(t)); // (token, feature)
        for (index_t begin = 0; begin < x.cols(); begin += width) {
            index_t const n = std::min(width, x.cols() - begin);
            tile_scale const s = range.fit(grid, seen.middleCols(begin, n), in_units(grid, seen, format));
            for (index_t j = begin; j < begin + n; ++j) {
                ASSERT_EQ(rounded(t, j), decode(grid, encode(grid, x(t, j), s), s)) << t << ", " << j;
            }
        }
    }
}

template <Grid G, class R> void expect_every_granularity(G const& grid, R const& range) {
    matrix const x = some_inputs();
    for (scale_format const format : {scale_format(float_format::f32), scale_format(float_format::f16),
                                      scale_format(scale_kind::e8m0), scale_format(scale_kind::ue4m3)}) {
        input_rounding const whole =
            activations<G, per_token, R>{.grid = grid, .range = range, .format = format}.rounding();
        EXPECT_FALSE(whole.fixed);
        expect_numbers(whole.dynamic(), x, grid, range, 40, format, false);
        input_rounding const groups =
            activations<G, per_group<16>, R>{.grid = grid, .range = range, .format = format}.rounding();
        EXPECT_FALSE(groups.fixed);
        expect_numbers(groups.dynamic(), x, grid, range, 16, format, false);
        expect_numbers(groups.fit(x), x, grid, range, 16, format, true);
        input_rounding const one =
            activations<G, per_tensor, R>{.grid = grid, .range = range, .format = format}.rounding();
        EXPECT_TRUE(one.fixed);
        expect_numbers(one.fit(x), x, grid, range, 40, format, true);
    }
}

TEST(activations, round_number_by_number_for_every_grid_range_and_granularity) {
    expect_every_granularity(int_grid<8>{}, minmax_range{});
    expect_every_granularity(int_grid<4>{}, absmax_range{});
    expect_every_granularity(int_grid<8, zero::none>{}, absmax_range{});
    expect_every_granularity(int_grid<4>{}, mse_range{.steps = 20});
    expect_every_granularity(e2m1{}, absmax_range{});
    expect_every_granularity(e2m1{}, mse_range{.norm = 2, .steps = 20});
    expect_every_granularity(e4m3{}, absmax_range{});
    expect_every_granularity(nf4{}, absmax_range{});
    expect_every_granularity(test::powers_of_two{}, absmax_range{}); // a user's own
}

/// A user's own range: the scale of the last number of a tile.
struct last_number_range {
    template <Grid G> tile_scale fit(G const& grid, matrix_view tile, scale_format format) const {
        return {store(format, std::max(1e-3F, std::abs(tile(tile.rows() - 1, tile.cols() - 1))) / grid.highest()), 0};
    }
    friend bool operator==(last_number_range, last_number_range) = default;
};

TEST(activations, take_a_range_of_ones_own) { expect_every_granularity(e2m1{}, last_number_range{}); }

TEST(activations, defaults_are_dynamic_floats_for_each_token) {
    input_rounding const r = activations<int_grid<8>>{}.rounding();
    ASSERT_EQ(r.grids.size(), 1U);
    EXPECT_EQ(r.grids.front(), any_grid(int_grid<8>{}));
    EXPECT_FALSE(r.fixed);
    EXPECT_EQ(r.width, 0);
    EXPECT_EQ(r.format, scale_format(float_format::f32));
    EXPECT_TRUE(r.range.empty());
    EXPECT_EQ(r.dynamic(), activation_quantizer(any_grid(int_grid<8>{})));
    EXPECT_TRUE((activations<int_grid<8>, per_tensor>{}.rounding().fixed));
    activations<e2m1, per_group<>> const in_groups{.granularity = {24}, .format = scale_kind::e8m0, .fixed = true};
    EXPECT_EQ(in_groups.rounding().width, 24);
    EXPECT_TRUE(in_groups.rounding().fixed);
    EXPECT_EQ((activations<e2m1, per_tile>{.granularity = {0, 24}, .fixed = true}.rounding().width), 24);
}

TEST(activations, have_the_names_of_known_grids_only) {
    EXPECT_EQ(activations<e2m1>{}.rounding().grids.front().name(), "e2m1");
    EXPECT_EQ((activations<int_grid<8, zero::none>>{}.rounding().grids.front().name()), "int8sym");
    EXPECT_EQ(activations<e4m3>{}.rounding().grids.front().name(), "ocp-e4m3");
    EXPECT_EQ(activations<test::powers_of_two>{}.rounding().grids.front().name(), "");
}

TEST(activations, that_share_scales_with_other_tokens_must_be_static) {
    EXPECT_EQ(failure_message([] { activations<e2m1, per_tensor>{.fixed = false}.rounding(); }),
              "activations: that share scales with other tokens must have static ones");
    EXPECT_EQ(failure_message([] { activations<e2m1, per_block<32, 32>>{.fixed = true}.rounding(); }),
              "activations: cannot share scales in blocks of 32 tokens");
}

} // namespace
