// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/output_search.hpp"
#include "io/failure_message.hpp"
#include "solver/passing_tokens.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::error_by_tokens;
using test::inputs_of;
using test::numbers_of;
using test::random_matrix;
using spacing = range_candidates::spacing;

/// All scales that the search may choose for a tile, the range it starts from first.
std::vector<tile_scale> candidates_of(range_candidates const& candidates, problem const& p, tile_scale initial) {
    std::vector<tile_scale> all;
    for (float const ratio : candidates.ratios(initial.scale, p.split())) {
        all.push_back(p.widened(initial, ratio));
    }
    return all;
}

/// What an exhaustive search must answer, found by passing tokens: given the other tiles, no candidate of a tile in the
/// last column of tiles is better than the chosen one; all codes are those of their scales; and the loss is the error,
/// which is never above that of the range the search starts from.
void expect_searched(matrix const& w, matrix const& x, matrix const& floats, layer_inputs const& known,
                     problem const& p, output_search const& search) {
    solution const s = search.solve(w, known, p);
    matrix const q = numbers_of(s, p);
    double const error = error_by_tokens(w, floats, q, x);
    EXPECT_NEAR(s.report.loss, error, 1e-4 * error);
    EXPECT_LE(error, (1 + 1e-6) * error_by_tokens(w, floats, test::rounded_in_own_range(w, p), x));

    solution initial = p.begin(w);
    p.fit_all(w, initial, {});
    index_t const tiles = s.scales.tiles.cols;
    int changed = 0;
    for (index_t tile_row = 0; tile_row < s.scales.tiles.rows; ++tile_row) {
        index_t const top = tile_row * s.tile.rows;
        index_t const height = std::min(s.tile.rows, w.rows() - top);
        for (index_t tile = 0; tile < tiles; ++tile) {
            index_t const left = tile * s.tile.cols;
            auto const all = candidates_of(search.candidates, p, initial.scales.at(tile_row, tile));
            tile_scale const chosen = s.scales.at(tile_row, tile);
            ASSERT_NE(std::ranges::find(all, chosen), all.end()) << "not a candidate";
            changed += chosen != all.front();
            for (index_t row = top; row < top + height; ++row) {
                for (index_t col = left; col < std::min(left + s.tile.cols, w.cols()); ++col) {
                    ASSERT_EQ(q(row, col), test::rounded(p, w(row, col), chosen)) << row << ", " << col;
                }
            }
            if (tile == tiles - 1 && search.finalists == 0) {
                matrix const rows = w.middleRows(top, height);
                double const least = error_by_tokens(rows, floats, q.middleRows(top, height), x);
                for (tile_scale const t : all) {
                    matrix other = q.middleRows(top, height);
                    for (index_t row = 0; row < height; ++row) {
                        for (index_t col = left; col < w.cols(); ++col) {
                            other(row, col) = test::rounded(p, rows(row, col), t);
                        }
                    }
                    EXPECT_LE(least, (1 + 1e-5) * error_by_tokens(rows, floats, other, x))
                        << "tile row " << tile_row << ": " << t.scale << " is better than " << chosen.scale;
                }
            }
        }
    }
    EXPECT_GT(changed, 0); // or nothing was searched
}

/// For inputs that are as they were, and for others.
void expect_searched(problem const& p, output_search const& search, extents shape = {11, 40}) {
    SCOPED_TRACE(testing::Message() << shape.rows << " x " << shape.cols << ", tile " << p.tile(shape).rows << " x "
                                    << p.tile(shape).cols << ", finalists " << search.finalists);
    matrix const w = random_matrix(shape.rows, shape.cols, 3, 0.2F);
    matrix const floats = correlated_inputs(90, shape.cols, 1);
    matrix const x = test::moved(floats, 0.3F, 5);
    {
        SCOPED_TRACE("no difference");
        expect_searched(w, floats, floats, inputs_of(floats), p, search);
    }
    {
        SCOPED_TRACE("with a difference");
        expect_searched(w, x, floats, inputs_of(x, floats), p, search);
    }
}

constexpr range_candidates some{.steps = 30};

TEST(output_search, finds_the_best_range_of_each_row) {
    for (index_t const finalists : {0, 4}) {
        output_search const search{some, finalists};
        expect_searched(problem_of{int_grid<3>{}, per_channel{}, minmax_range{}}, search);
        expect_searched(problem_of{e2m1{}, per_channel{}, absmax_range{}}, search);
        expect_searched(problem_of{int_grid<4, zero::none>{}, per_channel{}, absmax_range{}, float_format::f32},
                        search);
        expect_searched(problem_of{nf4{}, per_channel{}, absmax_range{}, float_format::bf16}, search, {40, 17});
    }
}

TEST(output_search, finds_the_best_range_of_a_group_given_the_others) {
    for (index_t const finalists : {0, 4}) {
        output_search const search{some, finalists};
        expect_searched(problem_of{int_grid<3>{}, per_group<16>{}, minmax_range{}}, search);
        expect_searched(problem_of{e2m1{}, per_group<8>{}, absmax_range{}}, search, {35, 24});
        expect_searched(problem_of{e2m1{}, per_group<8>{}, absmax_range{}, scale_kind::e8m0}, search);
    }
}

TEST(output_search, finds_the_best_range_of_tensors_and_blocks) {
    for (index_t const finalists : {0, 4}) {
        output_search const search{some, finalists};
        expect_searched(problem_of{int_grid<3>{}, per_tensor{}, minmax_range{}}, search, {50, 20});
        expect_searched(problem_of{e2m1{}, per_tensor{}, absmax_range{}}, search);
        expect_searched(problem_of{int_grid<3>{}, per_block<>{4, 12}, minmax_range{}}, search, {35, 40});
        expect_searched(problem_of{fp_grid<3, 0>{}, per_block<>{5, 40}, absmax_range{}}, search);
    }
}

TEST(output_search, searches_exponent_biases_too) {
    range_candidates const biases{.spaced = spacing::bias, .steps = 40};
    for (index_t const finalists : {0, 4}) {
        expect_searched(problem_of{e2m1{}, per_channel{}, absmax_range{}}, {biases, finalists});
        expect_searched(problem_of{fp_grid<1, 2>{}, per_group<16>{}, absmax_range{}}, {biases, finalists});
    }
}

TEST(output_search, tries_evenly_spaced_logarithms_of_the_range) {
    auto const ratios = range_candidates{.steps = 10, .lowest = 0.25, .highest = 2}.ratios(0.3F, {});
    ASSERT_EQ(ratios.size(), 11U);
    EXPECT_EQ(ratios[0], 1);
    for (int i = 0; i < 10; ++i) {
        double const expected = std::exp(std::log(0.25) + i / 9.0 * (std::log(2.0) - std::log(0.25)));
        EXPECT_NEAR(ratios[static_cast<std::size_t>(i + 1)], expected, 1e-6 * expected);
    }
    EXPECT_EQ((range_candidates{.steps = 1, .lowest = 0.5}.ratios(7, {})), (std::vector<float>{1, 0.5F}));
}

/// B_i = gamma_i B, where B belongs to the largest number as LLM-FP4 has it: B = 2^e - 1 - log2(max) + log2(2 - 2^-m).
TEST(output_search, tries_the_exponent_biases_of_llm_fp4) {
    int positive = 0;
    int negative = 0;
    for (float_split const split : {float_split{2, 1}, {3, 0}, {1, 2}, {4, 3}}) {
        double const top = std::exp2(split.exponent_bits) - 1; // exponent field of the largest number
        double const mantissa = 2 - std::exp2(-split.mantissa_bits);
        double const own = std::exp2(split.exponent_bits - 1) - 1; // bias of the grid as it is
        double const highest = mantissa * std::exp2(top - own);
        for (double const largest : {0.01, 0.5, 3.0, 1000.0}) {
            double const bias = top - std::log2(largest) + std::log2(mantissa);
            (bias > 0 ? positive : negative) += 1;
            auto const scale = static_cast<float>(largest / highest);
            auto const ratios = range_candidates{.spaced = spacing::bias}.ratios(scale, split);
            ASSERT_EQ(ratios.size(), 101U);
            EXPECT_EQ(ratios[0], 1);
            for (int i = 0; i < 100; ++i) {
                double const gamma = 0.01 + i * (1.2 - 0.01) / 100;
                double const expected = mantissa * std::exp2(top - gamma * bias); // the largest number of candidate i
                double const found = highest * double{scale} * double{ratios[static_cast<std::size_t>(i + 1)]};
                EXPECT_NEAR(found, expected, 1e-5 * expected) << split.exponent_bits << ", " << largest << ", " << i;
            }
        }
    }
    EXPECT_GT(positive, 0);
    EXPECT_GT(negative, 0);
}

TEST(output_search, a_power_of_two_in_the_weights_is_one_in_the_scales) {
    matrix const w = random_matrix(20, 40, 3);
    layer_inputs const known = inputs_of(correlated_inputs(100, 40, 1));
    auto const expect_equivariant = [&](problem const& p) {
        solution const s = output_search{}.solve(w, known, p);
        for (int const n : {-9, 4, 20}) {
            float const factor = std::ldexp(1.0F, n);
            solution const other = output_search{}.solve(factor * w, known, p);
            EXPECT_EQ(other.codes, s.codes) << n;
            EXPECT_EQ(other.scales.zeros, s.scales.zeros);
            for (std::size_t i = 0; i < s.scales.scales.size(); ++i) {
                EXPECT_EQ(other.scales.scales[i], factor * s.scales.scales[i]);
            }
            EXPECT_NEAR(other.report.loss, double{factor} * double{factor} * s.report.loss, 1e-6 * other.report.loss);
        }
    };
    expect_equivariant(problem_of{int_grid<4>{}, per_group<16>{}, minmax_range{}, float_format::f32});
    expect_equivariant(problem_of{e2m1{}, per_channel{}, absmax_range{}, float_format::f32});
}

TEST(output_search, a_few_finalists_lose_little) {
    problem_of const rows{e2m1{}, per_channel{}, absmax_range{}};
    problem_of const groups{int_grid<3>{}, per_group<32>{}, minmax_range{}};
    for (unsigned const seed : {1U, 2U, 3U}) {
        matrix const w = random_matrix(48, 96, seed);
        layer_inputs const known = inputs_of(correlated_inputs(300, 96, seed + 10));
        for (problem const* p : {static_cast<problem const*>(&rows), static_cast<problem const*>(&groups)}) {
            double const exhaustive = output_search{.finalists = 0}.solve(w, known, *p).report.loss;
            double const quick = output_search{.finalists = 4}.solve(w, known, *p).report.loss;
            EXPECT_LE(quick, 1.03 * exhaustive);
            EXPECT_LE(output_search{.finalists = 1000}.solve(w, known, *p).report.loss, 1.03 * exhaustive);
            output_cost const error(known, p->begin(w));
            EXPECT_NEAR(output_search{}.estimate(w, error, *p), exhaustive, 0.1 * exhaustive);
        }
    }
}

TEST(output_search, estimates_large_layers_from_some_rows) {
    matrix const w = random_matrix(2000, 24, 3);
    layer_inputs const known = inputs_of(correlated_inputs(100, 24, 1));
    problem_of const p{e2m1{}, per_channel{}, absmax_range{}};
    output_cost const error(known, p.begin(w));
    double const solved = output_search{}.solve(w, error, p).report.loss;
    EXPECT_NEAR(output_search{}.estimate(w, error, p), solved, 0.1 * solved);
    EXPECT_NEAR(output_search{}.solve(w, known, p).report.loss, solved, 1e-9 * solved);
}

TEST(output_search, of_rows_that_are_zero_finds_zeros) {
    matrix w = random_matrix(40, 24, 3);
    w.row(0).setZero();
    w.row(33).setZero();
    w.block(7, 8, 1, 8).setZero();
    matrix x = correlated_inputs(60, 24, 1);
    x.col(5).setZero();
    problem_of const groups{e2m1{}, per_group<8>{}, absmax_range{}};
    problem_of const affine{int_grid<4>{}, per_channel{}, minmax_range{}};
    for (problem const* p : {static_cast<problem const*>(&groups), static_cast<problem const*>(&affine)}) {
        solution const s = output_search{}.solve(w, inputs_of(x), *p);
        matrix const q = numbers_of(s, *p);
        EXPECT_TRUE(q.row(0).isZero(0));
        EXPECT_TRUE(q.row(33).isZero(0));
        EXPECT_TRUE(q.block(7, 8, 1, 8).isZero(0));
        double const error = error_by_tokens(w, x, q, x);
        EXPECT_NEAR(s.report.loss, error, 1e-4 * error);
        EXPECT_EQ(output_search{}.solve(matrix::Zero(3, 24), inputs_of(x), *p).report.loss, 0);
        EXPECT_EQ(output_search{}.solve(w, inputs_of(matrix::Zero(5, 24)), *p).report.loss, 0); // nothing to tell apart
    }
}

TEST(output_search, refuses_what_it_cannot_search) {
    matrix const w = random_matrix(5, 12, 3);
    layer_inputs const known = inputs_of(correlated_inputs(30, 12, 1));
    problem_of const p{int_grid<4>{}, per_channel{}, minmax_range{}};
    auto const message = [&](range_candidates const& c) {
        return failure_message([&] { output_search{c}.solve(w, known, p); });
    };
    double const nan = std::numeric_limits<double>::quiet_NaN();
    std::string const nothing = "range search: needs a step or more, and ranges above 0";
    EXPECT_EQ(message({.steps = 0}), nothing);
    EXPECT_EQ(message({.lowest = 0}), nothing);
    EXPECT_EQ(message({.lowest = 2, .highest = 1}), nothing);
    EXPECT_EQ(message({.lowest = nan}), nothing);
    EXPECT_EQ(message({.highest = nan}), nothing);
    EXPECT_EQ(message({.spaced = spacing::bias}), "range search: over exponent biases needs a floating-point grid");
    EXPECT_NE(failure_message([&] { output_search{}.solve(w, inputs_of(correlated_inputs(30, 11, 1)), p); }), "");
    matrix bad = w;
    bad(2, 3) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(failure_message([&] { output_search{}.solve(bad, known, p); }),
              "weights: the weight at row 2, column 3 is not finite");
}

TEST(output_search, threads_do_not_change_a_bit) {
    matrix const w = random_matrix(150, 64, 1);
    matrix const floats = correlated_inputs(100, 64, 1);
    layer_inputs const known = inputs_of(test::moved(floats, 0.2F, 3), floats);
    problem_of const rows{e2m1{}, per_channel{}, absmax_range{}};
    problem_of const groups{int_grid<3>{}, per_group<16>{}, minmax_range{}};
    thread_team two(2);
    for (problem const* p : {static_cast<problem const*>(&rows), static_cast<problem const*>(&groups)}) {
        solution const one = output_search{}.solve(w, known, *p);
        solution const both = output_search{}.solve(w, known, *p, two);
        EXPECT_EQ(one.codes, both.codes);
        EXPECT_EQ(one.scales, both.scales);
        EXPECT_EQ(one.report.loss, both.report.loss);
        output_cost const error(known, p->begin(w));
        EXPECT_EQ(output_search{}.estimate(w, error, *p), output_search{}.estimate(w, error, *p, two));
    }
}

} // namespace
