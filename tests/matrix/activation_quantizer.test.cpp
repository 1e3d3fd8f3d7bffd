// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/mse.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float none = std::numeric_limits<float>::quiet_NaN();

std::uint32_t bits_of_float(float x) { return std::bit_cast<std::uint32_t>(x); }

/// Tokens of different sizes, with zeros of both signs and numbers far outside.
matrix some_inputs(index_t tokens, index_t features) {
    matrix x = random_matrix(tokens, features, 1);
    for (index_t t = 0; t < tokens; ++t) {
        x.row(t) *= 0.1F + static_cast<float>(t % 7);
        x(t, t % features) = t % 2 == 0 ? 0.0F : -0.0F;
        x(t, (t + 1) % features) *= 1000;
    }
    return x;
}

/// One shift for each feature, from 0 to `most`.
std::vector<std::int8_t> some_shifts(index_t features, int most) {
    std::vector<std::int8_t> shifts;
    for (index_t j = 0; j < features; ++j) {
        shifts.push_back(static_cast<std::int8_t>(j * 5 % (most + 1)));
    }
    return shifts;
}

/// The scale of the features from `begin` on of a token as `how` asks for: laid over the smallest and the largest.
tile_scale dynamic_scale(any_grid const& grid, activation_rounding const& how, matrix_view token, index_t begin) {
    index_t const width = how.width == 0 ? token.cols() : std::min(how.width, token.cols() - begin);
    float low = 0;
    float high = 0;
    for (index_t j = begin; j < begin + width; ++j) {
        low = std::min(low, token(0, j));
        high = std::max(high, token(0, j));
    }
    scale_format format(how.kind, how.unit.value_or(1.0F));
    if (how.kind == scale_kind::ue4m3 && !how.unit) {
        float const largest = token.cwiseAbs().maxCoeff();
        float const half = 0.5F * (grid.numbers().high - grid.numbers().low);
        format.unit = std::clamp((largest > 0 ? largest : 1) / (half * 448), unit_limits::lowest, unit_limits::highest);
    }
    interval const range = low == 0 && high == 0 && contains_zero(grid) ? interval{-1, 1} : interval{low, high};
    return lay_over(grid.numbers(), grid.has_zero(), range, format);
}

/// Number by number with the scalar `encode` and `decode`: 2^-k Q(2^k x).
template <Grid G> void expect_scalar(G const& grid, activation_quantizer const& q, matrix_view x) {
    quantized_activations const codes = q.quantize(x);
    matrix const rounded = q.round(x);
    matrix const decoded = dequantize(codes);
    ASSERT_EQ(codes.shape, shape_of(x));
    ASSERT_EQ(codes.bits, G::bits);
    index_t const width = q.how().width == 0 ? x.cols() : q.how().width;
    index_t const groups = ceil_div(x.cols(), width);
    ASSERT_EQ(std::ssize(codes.scales), (q.fixed().empty() ? x.rows() : 1) * groups);
    for (index_t t = 0; t < x.rows(); ++t) {
        for (index_t j = 0; j < x.cols(); ++j) {
            tile_scale const s = q.fixed().empty() ? dynamic_scale(q.grid(), q.how(), x.row(t), j / width * width)
                                                   : q.fixed()[static_cast<std::size_t>(j / width)];
            ASSERT_EQ(codes.scale_of(t, j), s);
            int const k = q.shifts().empty() ? 0 : q.shifts()[static_cast<std::size_t>(j)];
            code const c = encode(grid, std::ldexp(x(t, j), k), s);
            ASSERT_EQ(codes.codes[static_cast<std::size_t>(t * x.cols() + j)], c) << t << ", " << j;
            std::uint32_t const number = bits_of_float(std::ldexp(decode(grid, c, s), -k));
            ASSERT_EQ(bits_of_float(rounded(t, j)), number) << t << ", " << j;
            ASSERT_EQ(bits_of_float(decoded(t, j)), number) << t << ", " << j;
        }
    }
}

template <Grid G> void expect_scalar(G const& grid, int most_shift) {
    any_grid const any(grid);
    matrix const larger = some_inputs(40, 50);
    float const zero = AffineGrid<G> ? 3 : 0;
    for (extents const shape : {extents{1, 1}, {1, 37}, {35, 5}, {37, 43}, {0, 9}}) {
        auto const x = larger.block(2, 3, shape.rows, shape.cols); // rows further apart than they are long
        expect_scalar(grid, activation_quantizer(any), x);
        expect_scalar(grid, activation_quantizer(any, {0.21F, zero}), x);
        expect_scalar(grid, activation_quantizer(any, {0.21F, zero}, some_shifts(shape.cols, most_shift)), x);
        for (index_t const width : {1, 16, 64}) {
            expect_scalar(grid, activation_quantizer(any, {.width = width}), x);
            activation_rounding fixed{.width = width, .shifts = some_shifts(shape.cols, most_shift)};
            for (index_t g = 0; g < ceil_div(shape.cols, width); ++g) {
                fixed.fixed.push_back({0.1F + 0.3F * static_cast<float>(g % 5), zero});
            }
            expect_scalar(grid, activation_quantizer(any, fixed), x);
        }
        for (index_t const width : {0, 16}) {
            for (scale_kind const kind : {scale_kind::f16, scale_kind::bf16, scale_kind::e8m0, scale_kind::ue4m3}) {
                expect_scalar(grid, activation_quantizer(any, {.width = width, .kind = kind}), x);
            }
            activation_rounding const in_units{.width = width, .kind = scale_kind::ue4m3, .unit = 0.7F};
            expect_scalar(grid, activation_quantizer(any, in_units), x);
        }
    }
}

TEST(activation_quantizer, encodes_and_decodes_every_number) {
    expect_scalar(e2m1{}, 3);
    expect_scalar(fp_grid<3, 0>{}, 7);
    expect_scalar(e4m3{}, 15);
    expect_scalar(int_grid<8>{}, 2);
    expect_scalar(int_grid<4, zero::none>{}, 2);
    expect_scalar(nf4{}, 1);
    expect_scalar(test::powers_of_two{}, 1);
}

TEST(activation_quantizer, tiny_and_huge_numbers_are_no_exception) {
    matrix x(1, 6);
    x << 3e38F, -3e38F, 1e-37F, -1e-40F, 1, 0;
    for (float const scale : {0x1p-126F, 1e-38F, 1.0F, 3e37F}) {
        expect_scalar(e2m1{}, activation_quantizer(any_grid(e2m1{}), {scale, 0}, {0, 15, 15, 3, 1, 2}), x);
    }
    expect_scalar(int_grid<8>{}, activation_quantizer(any_grid(int_grid<8>{})), x);
    expect_scalar(int_grid<8>{}, activation_quantizer(any_grid(int_grid<8>{})), x.rightCols(4));
}

TEST(activation_quantizer, dynamic_scales_are_those_of_each_token) {
    activation_quantizer const q(any_grid(int_grid<8>{}));
    EXPECT_TRUE(q.fixed().empty());
    matrix x = some_inputs(30, 40);
    matrix const rounded = q.round(x);
    for (index_t t = 0; t < x.rows(); ++t) {
        float const step = (std::max(0.0F, x.row(t).maxCoeff()) - std::min(0.0F, x.row(t).minCoeff())) / 255;
        EXPECT_LE((rounded.row(t) - x.row(t)).cwiseAbs().maxCoeff(), 1.001F * step); // the zero point is rounded too
    }
    x.row(3) *= 16; // changes this token and no other
    matrix const again = q.round(x);
    for (index_t t = 0; t < x.rows(); ++t) {
        EXPECT_EQ(again.row(t), t == 3 ? (16 * rounded.row(t)).eval() : rounded.row(t).eval()) << t;
    }
}

TEST(activation_quantizer, a_token_does_not_depend_on_the_others) {
    matrix const x = some_inputs(30, 40);
    for (scale_kind const kind : {scale_kind::f32, scale_kind::e8m0, scale_kind::ue4m3}) {
        activation_quantizer const q(any_grid(e2m1{}), {.width = 16, .kind = kind});
        matrix const rounded = q.round(x);
        for (index_t t = 0; t < x.rows(); ++t) {
            EXPECT_EQ(q.round(x.row(t)), rounded.row(t)) << t;
        }
    }
}

TEST(activation_quantizer, fits_scales_by_any_range) {
    matrix const x = random_matrix(7, 40, 1);
    int_grid<4> const grid;
    mse_range const range{.norm = 2, .steps = 20};
    for (index_t const width : {0, 16}) {
        activation_quantizer const q(any_grid(grid), {.width = width, .range = {grid, range}});
        matrix const rounded = q.round(x);
        for (index_t t = 0; t < x.rows(); ++t) {
            for (index_t begin = 0; begin < 40; begin += width == 0 ? 40 : width) {
                index_t const n = width == 0 ? 40 : std::min<index_t>(width, 40 - begin);
                tile_scale const s = range.fit(grid, x.block(t, begin, 1, n), float_format::f32);
                for (index_t j = begin; j < begin + n; ++j) {
                    EXPECT_EQ(rounded(t, j), decode(grid, encode(grid, x(t, j), s), s));
                }
            }
        }
        EXPECT_LT((rounded - x).norm(), (activation_quantizer(any_grid(grid), {.width = width}).round(x) - x).norm());
    }
}

TEST(activation_quantizer, zeros_stay_zeros) {
    matrix const x = matrix::Zero(3, 21);
    for (any_grid const& grid : {any_grid(e2m1{}), any_grid(int_grid<8>{}), any_grid(int_grid<4, zero::none>{}),
                                 any_grid(nf4{}), any_grid(ternary{})}) {
        EXPECT_EQ(activation_quantizer(grid).round(x), x);
        EXPECT_EQ(activation_quantizer(grid, {2, 0}, some_shifts(21, 3)).round(x), x);
    }
}

TEST(activation_quantizer, names_the_token_that_is_not_finite) {
    for (float const bad : {none, infinity, -infinity}) {
        matrix x = some_inputs(40, 19);
        x(33, 18) = bad;
        for (auto const& q : {activation_quantizer(any_grid(e2m1{})), activation_quantizer(any_grid(e2m1{}), {1, 0}),
                              activation_quantizer(any_grid(int_grid<8>{}), {1, 3}, some_shifts(19, 3))}) {
            EXPECT_EQ(failure_message([&] { q.quantize(x); }), "activations: those of token 33 are not finite");
            EXPECT_EQ(failure_message([&] { q.round(x); }), "activations: those of token 33 are not finite");
        }
    }
}

TEST(activation_quantizer, refuses_impossible_scales_and_shifts) {
    any_grid const grid(e2m1{});
    for (float const scale : {0.0F, -1.0F, infinity, none}) {
        std::string const message = failure_message([&] { activation_quantizer(grid, {scale, 0}); });
        EXPECT_TRUE(message.starts_with("activations: cannot be quantized with a scale of ")) << message;
    }
    for (float const zero : {infinity, none}) {
        EXPECT_NE(failure_message([&] { activation_quantizer(any_grid(int_grid<4>{}), {1, zero}); }), "") << zero;
    }
    EXPECT_EQ(failure_message([&] {
                  activation_quantizer(grid, {1, 1});
              }),
              "activations: cannot have a zero point on a grid without one");
    EXPECT_EQ(failure_message([&] {
                  activation_quantizer(grid, {1, 0}, {0, 16});
              }),
              "activations: cannot be shifted by 16 bits");
    EXPECT_EQ(failure_message([&] {
                  activation_quantizer(grid, {1, 0}, {-1});
              }),
              "activations: cannot be shifted by -1 bits");
    auto const refusal = [&](activation_rounding const& how) {
        return failure_message([&] { activation_quantizer(grid, how); });
    };
    EXPECT_EQ(refusal({.width = -1}), "activations: cannot share a scale in groups of -1");
    EXPECT_EQ(refusal({.fixed = {{1, 0}, {0, 0}}}), "activations: cannot be quantized with a scale of 0.000000");
    EXPECT_EQ(refusal({.fixed = {{1, 0}, {1, 0}}}),
              "activations: have several static scales, but no groups of features");
    EXPECT_EQ(refusal({.unit = 2.0F}), "activations: have scales that are not E4M3, which alone have a unit");
    for (float const unit : {0.0F, -1.0F, infinity, none}) {
        EXPECT_NE(refusal({.kind = scale_kind::ue4m3, .unit = unit}), "") << unit;
    }
    EXPECT_EQ(refusal({.shifts = {1}}), "activations: have shifts, which go with static scales only");
    std::string const both = "activations: have static scales and a way to fit others";
    EXPECT_EQ(refusal({.kind = scale_kind::e8m0, .fixed = {{1, 0}}}), both);
    EXPECT_EQ(refusal({.fixed = {{1, 0}}, .range = {e2m1{}, mse_range{}}}), both);
    EXPECT_EQ(failure_message([&] { activation_quantizer(grid, {1, 0}, {0, 15}); }), "");
}

TEST(activation_quantizer, is_equal_to_what_rounds_alike) {
    any_grid const grid(e2m1{}, "e2m1");
    activation_quantizer const q(grid, {0.5F, 0}, {0, 1});
    EXPECT_TRUE(q == activation_quantizer(any_grid(e2m1{}, "another name"), {0.5F, 0}, {0, 1}));
    EXPECT_FALSE(q == activation_quantizer(grid));
    EXPECT_FALSE(q == activation_quantizer(grid, {0.25F, 0}, {0, 1}));
    EXPECT_FALSE(q == activation_quantizer(grid, {0.5F, 0}, {1, 1}));
    EXPECT_FALSE(q == activation_quantizer(grid, {0.5F, 0}));
    EXPECT_FALSE(q == activation_quantizer(any_grid(fp_grid<3, 0>{}), {0.5F, 0}, {0, 1}));
    auto const different = [&](activation_rounding const& a, activation_rounding const& b) {
        EXPECT_TRUE(activation_quantizer(grid, a) == activation_quantizer(grid, a));
        EXPECT_TRUE(activation_quantizer(grid, b) == activation_quantizer(grid, b));
        return !(activation_quantizer(grid, a) == activation_quantizer(grid, b));
    };
    EXPECT_TRUE(different({.width = 16}, {.width = 32}));
    EXPECT_TRUE(different({.kind = scale_kind::e8m0}, {.kind = scale_kind::ue4m3}));
    EXPECT_TRUE(different({.kind = scale_kind::ue4m3, .unit = 1.0F}, {.kind = scale_kind::ue4m3}));
    EXPECT_TRUE(different({.range = {e2m1{}, mse_range{}}}, {.range = {e2m1{}, mse_range{.norm = 2}}}));
    EXPECT_TRUE(different({.range = {e2m1{}, mse_range{}}}, {}));
    EXPECT_FALSE(different({.range = {e2m1{}, mse_range{}}}, {.range = {e2m1{}, mse_range{}}}));
    EXPECT_FALSE(different({.range = {e2m1{}, absmax_range{}}}, {})); // the usual one
}

TEST(activation_quantizer, threads_do_not_change_a_bit) {
    matrix const x = some_inputs(100, 33);
    thread_team two(2);
    for (auto const& q : {activation_quantizer(any_grid(int_grid<8>{})),
                          activation_quantizer(any_grid(e2m1{}), {.width = 16, .kind = scale_kind::ue4m3}),
                          activation_quantizer(any_grid(e2m1{}), {0.3F, 0}, some_shifts(33, 3))}) {
        EXPECT_EQ(q.round(x), q.round(x, two));
        auto const one = q.quantize(x);
        auto const both = q.quantize(x, two);
        EXPECT_EQ(one.codes, both.codes);
        EXPECT_EQ(one.scales, both.scales);
    }
    matrix bad = x;
    bad(71, 5) = none;
    EXPECT_EQ(failure_message([&] { activation_quantizer(any_grid(e2m1{})).round(bad, two); }),
              "activations: those of token 71 are not finite");
}

TEST(activation_quantizer, zeros_are_as_near_to_0_as_the_grid_can_say) {
    matrix x = matrix::Ones(3, 20); // (token, feature)
    x.row(1).setZero();
    for (any_grid const& grid : {any_grid(int_grid<1, zero::none>{}), any_grid(test::powers_of_two{})}) {
        matrix const rounded = activation_quantizer(grid).round(x);
        EXPECT_LE(rounded.row(1).cwiseAbs().maxCoeff(), 0x1p-126F);
        EXPECT_EQ(rounded.row(0), x.row(0));
    }
    EXPECT_EQ(activation_quantizer(any_grid(e2m1{})).round(x), x);
}

TEST(activation_quantizer, static_scales_and_shifts_are_for_so_many_features) {
    any_grid const grid(int_grid<8, zero::none>{});
    activation_quantizer const shifted(grid, {1, 0}, {0, 1, 2});
    EXPECT_EQ(failure_message([&] { shifted.quantize(matrix::Zero(2, 4)); }),
              "activations: have not as many features as the quantizer has shifts");
    activation_quantizer const grouped(grid, activation_rounding{.width = 2, .fixed = {{1, 0}, {2, 0}}});
    EXPECT_EQ(failure_message([&] { grouped.round(matrix::Zero(2, 5)); }),
              "activations: have not as many groups of features as the quantizer has static scales");
    EXPECT_EQ(failure_message([&] { grouped.round(matrix::Zero(2, 3)); }), "");
}

} // namespace
