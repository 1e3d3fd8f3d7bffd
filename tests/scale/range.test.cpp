// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <variant>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/any_grid.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/scale/mse.hpp"
#include "detent/scale/range.hpp"
#include "detent/scale/rounder.hpp"
#include "detent/scale/truncated.hpp"
#include "grid/own_grid.hpp"
#include "scale/ranges.hpp"

namespace {

using namespace detent;
using test::row_of;

/// A range as a user would write one.
struct unit_range : std::monostate {
    template <Grid G> static tile_scale fit(G const&, matrix_view, scale_format) { return {1, 0}; }
};
struct not_comparable {
    template <Grid G> static tile_scale fit(G const&, matrix_view, scale_format) { return {1, 0}; }
};
static_assert(RangeFor<unit_range, int_grid<4>>);
static_assert(!RangeFor<not_comparable, int_grid<4>> && !RangeFor<int, int_grid<4>> && !RangeFor<unit_range, int>);

TEST(interval, contains_zero_and_all_weights) {
    auto const expect = [](matrix const& w, float low, float high) {
        interval const i = interval::of(int_grid<4>{}, w);
        EXPECT_EQ(i.low, low);
        EXPECT_EQ(i.high, high);
    };
    expect(row_of({-1, 2, 0.5F}), -1, 2);
    expect(row_of({1, 2}), 0, 2);
    expect(row_of({-1, -2}), -2, 0);
    expect(row_of({0, 0}), -1, 1);
    matrix w = matrix::Zero(5, 9);
    w(3, 8) = 4;
    w(4, 0) = -1;
    expect(w, -1, 4);
    expect(w.block(2, 7, 2, 2), 0, 4); // a block of a larger matrix
}

TEST(interval, of_zeros_is_empty_where_the_grid_has_no_zero) {
    matrix const zeros = row_of({0, -0.0F});
    for (interval const i : {interval::of(test::powers_of_two{}, zeros), interval::of(int_grid<1, zero::none>{}, zeros),
                             interval::of(any_grid(test::powers_of_two{}), zeros)}) {
        EXPECT_EQ(i.low, 0);
        EXPECT_EQ(i.high, 0);
    }
    EXPECT_EQ(interval::of(any_grid(e2m1{}), zeros).high, 1);
    EXPECT_EQ(interval::of(test::powers_of_two{}, row_of({0, 1e-30F})).high, 1e-30F);
}

TEST(interval, symmetric_and_scaled) {
    interval const i = interval{-1, 4}.symmetric();
    EXPECT_EQ(i.low, -4);
    EXPECT_EQ(i.high, 4);
    EXPECT_EQ((interval{-5, 4}.symmetric().high), 5);
    EXPECT_EQ((interval{0, 4}.symmetric().low), -4);
    EXPECT_EQ((interval{-2, 4}.scaled(0.5F).low), -1);
    EXPECT_EQ((interval{-2, 4}.scaled(0.5F).high), 2);
}

TEST(lay_affine, the_zero_point_stays_within_the_codes) {
    // The stored scale is larger than the interval asks for, or smaller.
    EXPECT_EQ(lay_affine(int_grid<2>{}, {-1e9F, 0}, float_format::f16), (tile_scale{65504, 3}));
    EXPECT_EQ(lay_affine(int_grid<2>{}, {-1e-9F, 0}, float_format::f16), (tile_scale{0x1p-24F, 0}));
    EXPECT_EQ(lay_affine(int_grid<2>{}, {-6, 0}, float_format::f16), (tile_scale{2, 3}));
}

/// floor(log2 x) of a positive normal float.
int exponent(double x) {
    int e = 0;
    for (; x >= 2; x /= 2, ++e) {
    }
    for (; x < 1; x *= 2, --e) {
    }
    return e;
}

template <Grid G> void expect_ocp_rule(G const& grid, int emax) {
    for (double x = 1e-30; x < 1e30; x *= 1.37) {
        int const e = exponent(x);
        float const power = std::ldexp(1.0F, e);
        for (float const amax : {static_cast<float>(x), power, std::nextafter(power, 0.0F)}) {
            float const expected = std::ldexp(1.0F, exponent(amax) - emax);
            ASSERT_EQ(lay_symmetric(grid, {-amax, amax}, scale_kind::e8m0), (tile_scale{expected, 0})) << amax;
        }
    }
}

TEST(scale_over, powers_of_two_follow_the_rule_of_ocp) {
    expect_ocp_rule(e2m1{}, 2);
    expect_ocp_rule(fp_grid<2, 3>{}, 2);
    expect_ocp_rule(fp_grid<3, 2>{}, 4);
    expect_ocp_rule(e4m3{}, 8);
    expect_ocp_rule(e5m2{}, 15);
    expect_ocp_rule(int_grid<8, zero::none>{}, 6); // MXINT8 counts in units of 1/64
    // With a zero point, the exponent of the whole range.
    EXPECT_EQ(lay_affine(int_grid<4>{}, {-1, 7}, scale_kind::e8m0), (tile_scale{1, 1}));
    EXPECT_EQ(lay_affine(int_grid<4>{}, {-0.5F, 7}, scale_kind::e8m0), (tile_scale{0.5F, 1}));
    EXPECT_EQ(lay_affine(int_grid<4>{}, {-7.9F, 8}, scale_kind::e8m0), (tile_scale{1, 8}));
}

TEST(scale_over, powers_of_two_end_somewhere) {
    float const largest = std::numeric_limits<float>::max();
    EXPECT_EQ(scale_over(numbers_of(e2m1{}), 0, scale_kind::e8m0), 0x1p-127F);
    EXPECT_EQ(scale_over(numbers_of(e2m1{}), 1e-44F, scale_kind::e8m0), 0x1p-127F);
    EXPECT_EQ(scale_over(numbers_of(e2m1{}), largest, scale_kind::e8m0), 0x1p124F);
    EXPECT_EQ(scale_over(numbers_of(e2m1{}), 2 * largest, scale_kind::e8m0), 0x1p124F);
    EXPECT_EQ(scale_over(numbers_of(ternary{}), largest, scale_kind::e8m0), 0x1p126F);
}

TEST(with_unit, gives_the_widest_range_the_largest_scale) {
    matrix w = matrix::Constant(3, 40, 0.25F);
    w(2, 7) = -3.7F;
    auto const unit = [&](auto const& grid) { return with_unit(grid, w, scale_kind::ue4m3).unit; };
    EXPECT_EQ(unit(e2m1{}), 3.7F / (6 * 448)); // NVFP4's
    EXPECT_EQ(unit(nf4{}), 3.7F / 448);
    auto const expect_largest = [&](auto const& grid) {
        scale_format const format{scale_kind::ue4m3, unit(grid)};
        EXPECT_EQ(lay_symmetric(grid, {-3.7F, 3.7F}, format).scale, 448 * format.unit);
        EXPECT_EQ(byte_of(format, lay_symmetric(grid, {-3.7F, 3.7F}, format).scale), 0x7E);
    };
    expect_largest(e2m1{});
    expect_largest(int_grid<4>{});
    expect_largest(int_grid<3, zero::none>{});
    expect_largest(nf4{});
    for (scale_format const format : {scale_format(scale_kind::e8m0), scale_format(float_format::f32)}) {
        EXPECT_EQ(with_unit(e2m1{}, w, format), format);
    }
}

TEST(with_unit, is_positive_for_any_weights) {
    auto const unit = [&](matrix const& w) { return with_unit(e2m1{}, w, scale_kind::ue4m3).unit; };
    EXPECT_EQ(unit(matrix::Zero(2, 3)), 1.0F / 2688); // as for -1 to 1
    EXPECT_EQ(unit(matrix(0, 5)), 1);
    EXPECT_EQ(unit(row_of({1e-38F, 0})), unit_limits::lowest);
    float const largest = std::numeric_limits<float>::max();
    EXPECT_EQ(unit(row_of({-largest})), largest / 2688);
    EXPECT_EQ(with_unit(ternary{}, row_of({largest}), scale_kind::ue4m3).unit, unit_limits::highest);
}

/// A tile of zeros gets the smallest scale there is, so that it is decoded as near to 0 as the grid can say.
template <Grid G, RangeFor<G> R> void expect_smallest(G const& grid, R const& range) {
    for (matrix const& w : {matrix{matrix::Zero(3, 40)}, row_of({-0.0F}), row_of({0, -0.0F, 0})}) {
        for (scale_kind const kind :
             {scale_kind::f16, scale_kind::bf16, scale_kind::f32, scale_kind::e8m0, scale_kind::ue4m3}) {
            for (scale_format const format : {scale_format(kind), with_unit(grid, w, kind)}) {
                tile_scale const s = range.fit(grid, w, format);
                EXPECT_EQ(s, (tile_scale{limits_of(format).smallest, 0}));
                float const number = decode(grid, encode(grid, 0, s), s);
                for (float const other : table_of(grid)) {
                    EXPECT_FALSE(std::abs(other * s.scale) < std::abs(number));
                }
                rounder<G> const round(grid);
                code c = 0;
                float rounded = 0;
                round(1, w.data(), s, &c, &rounded);
                EXPECT_EQ(rounded, number);
            }
        }
    }
}

/// Numbers of such sizes that 2^-24 of them is not small, or less than a float.
struct large_values {
    static constexpr std::array<float, 4> values{-3e5F, -1e5F, 1e5F, 4e5F};
};
struct small_values {
    static constexpr std::array<float, 4> values{-3e-9F, -1e-9F, 1e-9F, 4e-9F};
};

TEST(range, zeros_are_as_near_to_0_as_a_grid_without_0_can_say) {
    auto const expect = [](auto const& grid) {
        expect_smallest(grid, absmax_range{});
        expect_smallest(grid, mse_range{});
        expect_smallest(grid, mse_range{.norm = 2, .steps = 7});
        expect_smallest(grid, truncated_range{});
        expect_smallest(grid, default_range<std::remove_cvref_t<decltype(grid)>>{});
    };
    expect(int_grid<1, zero::none>{});
    expect(test::uneven_pair{});
    expect(test::powers_of_two{});
    expect(test::five{});
    expect(test::odd_multiples{});
    expect(codebook_grid<large_values>{});
    expect(codebook_grid<small_values>{});
}

TEST(range, zeros_keep_their_scale_on_a_grid_with_0) {
    matrix const zeros = matrix::Zero(3, 40);
    auto const expect = [&](auto const& grid, auto const& range, tile_scale expected) {
        EXPECT_EQ(range.fit(grid, zeros, float_format::f32), expected);
        EXPECT_EQ(decode(grid, encode(grid, 0, expected), expected), 0);
    };
    expect(int_grid<4>{}, minmax_range{}, {2.0F / 15, 7});
    expect(int_grid<4>{}, absmax_range{}, {2.0F / 15, 8});
    expect(int_grid<4>{}, mse_range{}, {2.0F / 15, 7});
    expect(e2m1{}, absmax_range{}, {1.0F / 6, 0});
    expect(nf4{}, truncated_range{}, {1, 0});
    expect(ternary{}, mse_range{}, {1, 0});
    EXPECT_EQ(with_unit(e2m1{}, zeros, scale_kind::ue4m3).unit, 1.0F / (6 * 448));
    EXPECT_EQ(with_unit(test::five{}, zeros, scale_kind::ue4m3).unit, unit_limits::lowest);
}

} // namespace
