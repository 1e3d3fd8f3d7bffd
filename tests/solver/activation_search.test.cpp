// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/solver/activation_search.hpp"
#include "io/failure_message.hpp"
#include "solver/passing_tokens.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::error_by_tokens;
using test::random_matrix;

std::vector<any_grid> const fp4_grids{any_grid(fp_grid<2, 1>{}), any_grid(fp_grid<3, 0>{}), any_grid(fp_grid<1, 2>{})};

/// Features of very different sizes, one of which is always zero.
matrix inputs_with_outliers(index_t tokens, index_t features) {
    matrix x = correlated_inputs(tokens, features, 1);
    x.col(3) *= 40;
    x.col(9) *= 15;
    x.col(5).setZero();
    return x;
}

/// Weights, and others near them.
struct layer {
    matrix w = random_matrix(30, 24, 3);
    matrix q = w + 0.05F * random_matrix(30, 24, 4);
};

/// k_j = clip(round(B_j - rho), 0, 2^e - 1), B = 2^e - 1 - log2(max) + log2(2 - 2^-m), in double.
std::vector<std::int8_t> paper_shifts(matrix const& x, float_split split, double scale) {
    double const steps = std::exp2(split.exponent_bits) - 1;
    double const mantissa = 2 - std::exp2(-split.mantissa_bits);
    auto const bias_of = [&](double largest) { return steps - std::log2(largest) + std::log2(mantissa); };
    double const own = std::exp2(split.exponent_bits - 1) - 1;
    double const rho = bias_of(scale * mantissa * std::exp2(steps - own));
    std::vector<std::int8_t> shifts;
    for (index_t j = 0; j < x.cols(); ++j) {
        double const bias = bias_of(x.col(j).cwiseAbs().maxCoeff()); // infinite for a dead feature
        shifts.push_back(static_cast<std::int8_t>(std::min(std::max(std::nearbyint(bias - rho), 0.0), steps)));
    }
    return shifts;
}

TEST(channel_shifts, are_those_of_the_paper) {
    matrix const x = inputs_with_outliers(50, 24);
    float_vector const largest = x.cwiseAbs().colwise().maxCoeff();
    for (any_grid const& grid : {fp4_grids[0], fp4_grids[1], fp4_grids[2], any_grid(fp_grid<4, 3>{})}) {
        for (float const part : {1.0F, 0.3F, 1.2F}) {
            float const scale = part * grid.lay(interval::of(grid, x)).scale;
            auto const shifts = channel_shifts(grid, largest, scale);
            EXPECT_EQ(shifts, paper_shifts(x, *grid.split(), scale));
            EXPECT_EQ(shifts[5], std::min(15, (1 << grid.split()->exponent_bits) - 1)); // dead
        }
    }
    EXPECT_EQ(channel_shifts(any_grid(int_grid<8>{}), largest, 1), std::vector<std::int8_t>(24, 0));
    EXPECT_EQ(channel_shifts(any_grid(fp_grid<5, 2>{}), largest, 1e30F), std::vector<std::int8_t>(24, 15));
}

/// The best of all candidates of all grids by passing tokens, and what is reported about it.
void expect_best(matrix const& x, std::vector<any_grid> const& grids, activation_search const& search) {
    layer const l;
    auto const found = search(x, l.w, l.q, grids);
    double const error = error_by_tokens(l.w, x, l.q, found.quantizer.round(x));
    double const without = error_by_tokens(l.w, x, l.q, x);
    double least = std::numeric_limits<double>::infinity();
    bool among = false;
    for (any_grid const& grid : grids) {
        tile_scale const whole = grid.lay(interval::of(grid, x));
        EXPECT_LE(error, (1 + 1e-6) * error_by_tokens(l.w, x, l.q, search.whole_range(x, grid).round(x)));
        for (float const ratio : search.candidates.ratios(whole.scale, grid.split())) {
            float const scale = whole.scale * ratio;
            auto const shifts =
                search.shifted && grid.split() ? paper_shifts(x, *grid.split(), scale) : std::vector<std::int8_t>{};
            activation_quantizer const q(grid, {scale, whole.zero}, shifts);
            least = std::min(least, error_by_tokens(l.w, x, l.q, q.round(x)));
            among = among || q == found.quantizer;
        }
    }
    EXPECT_TRUE(among) << "is no candidate";
    EXPECT_LE(error, (1 + 1e-5) * least);
    double const tokens = static_cast<double>(x.rows());
    EXPECT_NEAR(found.error, tokens * (error - without), 1e-4 * tokens * error);
}

TEST(activation_search, finds_the_best_range_of_the_best_grid) {
    matrix const x = inputs_with_outliers(120, 24);
    for (bool const shifted : {false, true}) {
        SCOPED_TRACE(shifted);
        expect_best(x, fp4_grids, {.candidates = {.steps = 40}, .shifted = shifted, .finalists = 0});
        expect_best(0.01F * x, fp4_grids,
                    {.candidates = {.spaced = range_candidates::spacing::bias, .steps = 40},
                     .shifted = shifted,
                     .finalists = 0});
        // From a sample, when all candidates are finalists.
        expect_best(x, fp4_grids, {.candidates = {.steps = 20}, .shifted = shifted, .finalists = 1000, .sample = 10});
    }
    expect_best(x, {any_grid(int_grid<4>{}), any_grid(int_grid<4, zero::none>{})},
                {.candidates = {.steps = 40}, .finalists = 0});
}

TEST(activation_search, finalists_are_never_worse_than_the_whole_range_and_near_the_best) {
    matrix const x = inputs_with_outliers(2000, 24);
    layer const l;
    double const best = activation_search{.finalists = 0}(x, l.w, l.q, fp4_grids).error;
    for (index_t const finalists : {1, 6}) {
        for (index_t const sample : {100, 5000}) {
            auto const found = activation_search{.finalists = finalists, .sample = sample}(x, l.w, l.q, fp4_grids);
            double const error = error_by_tokens(l.w, x, l.q, found.quantizer.round(x));
            for (any_grid const& grid : fp4_grids) {
                matrix const whole = activation_search{}.whole_range(x, grid).round(x);
                EXPECT_LE(error, (1 + 1e-6) * error_by_tokens(l.w, x, l.q, whole));
            }
            EXPECT_LE(found.error, best + 0.03 * std::abs(best));
            EXPECT_GE(found.error, best - 1e-5 * std::abs(best));
        }
    }
}

TEST(activation_search, shifts_serve_outliers_and_all_others) {
    matrix const x = inputs_with_outliers(200, 24);
    layer l;
    for (matrix* const weights : {&l.w, &l.q}) { // as outliers come, the weights that meet them are small
        weights->col(3) /= 40;
        weights->col(9) /= 15;
    }
    auto const plain = activation_search{}(x, l.w, l.q, fp4_grids);
    auto const shifted = activation_search{.shifted = true}(x, l.w, l.q, fp4_grids);
    EXPECT_TRUE(plain.quantizer.shifts().empty());
    EXPECT_EQ(shifted.quantizer.shifts().size(), 24U);
    EXPECT_LT(shifted.error, 0.5 * plain.error);
}

TEST(activation_search, the_whole_range_holds_all_inputs) {
    matrix const x = inputs_with_outliers(50, 24);
    for (bool const shifted : {false, true}) {
        auto const q = activation_search{.shifted = shifted}.whole_range(x, fp4_grids[0]);
        EXPECT_NEAR(q.fixed().front().scale, x.cwiseAbs().maxCoeff() / 6, 1e-6F * q.fixed().front().scale);
        EXPECT_EQ(q.shifts(), shifted ? paper_shifts(x, {2, 1}, q.fixed().front().scale) : std::vector<std::int8_t>{});
    }
    tile_scale const affine = activation_search{}.whole_range(x, any_grid(int_grid<8>{})).fixed().front();
    EXPECT_NEAR(affine.scale, (x.maxCoeff() - x.minCoeff()) / 255, 1e-6F * affine.scale);
    EXPECT_EQ(affine.zero, std::nearbyint(-x.minCoeff() / affine.scale));
}

TEST(activation_search, inputs_that_are_zero_stay_zero) {
    layer const l;
    matrix const x = matrix::Zero(9, 24);
    for (bool const shifted : {false, true}) {
        auto const found = activation_search{.shifted = shifted}(x, l.w, l.q, fp4_grids);
        EXPECT_EQ(found.quantizer.round(x), x);
        EXPECT_EQ(found.error, 0);
    }
}

TEST(activation_search, refuses_what_it_cannot_search) {
    layer const l;
    matrix x = correlated_inputs(20, 24, 1);
    EXPECT_EQ(failure_message([&] { activation_search{}(x, l.w, l.q, {}); }),
              "range search: has no grid for the inputs");
    EXPECT_EQ(failure_message([&] { activation_search{}(x.topRows(0), l.w, l.q, fp4_grids); }), "inputs: are missing");
    EXPECT_EQ(failure_message([&] { activation_search{.candidates = {.steps = 0}}(x, l.w, l.q, fp4_grids); }),
              "range search: needs a step or more, and ranges above 0");
    std::vector<any_grid> const integers{any_grid(int_grid<8>{})};
    range_candidates const biases{.spaced = range_candidates::spacing::bias};
    EXPECT_EQ(failure_message([&] { activation_search{.candidates = biases}(x, l.w, l.q, integers); }),
              "range search: over exponent biases needs a floating-point grid");
    x(7, 3) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(failure_message([&] { activation_search{}(x, l.w, l.q, fp4_grids); }), "inputs: are not finite");
}

TEST(activation_search, threads_do_not_change_the_answer) {
    matrix const x = inputs_with_outliers(700, 24);
    layer const l;
    thread_team two(2);
    activation_search const search{.candidates = {.steps = 20}, .shifted = true, .finalists = 3, .sample = 100};
    auto const one = search(x, l.w, l.q, fp4_grids);
    auto const both = search(x, l.w, l.q, fp4_grids, two);
    EXPECT_TRUE(one.quantizer == both.quantizer);
    EXPECT_EQ(one.error, both.error);
}

} // namespace
