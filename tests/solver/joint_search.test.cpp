// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/scale/absmax.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/joint_search.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "solver/passing_tokens.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::error_by_tokens;
using test::numbers_of;
using test::random_matrix;

/// Weights of 4 bits, a scale for each row; and inputs of 4 bits.
problem_of const e2m1_rows{fp_grid<2, 1>{}, per_channel{}, absmax_range{}};
problem_of const e3m0_rows{fp_grid<3, 0>{}, per_channel{}, absmax_range{}};
problem_of const e1m2_rows{fp_grid<1, 2>{}, per_channel{}, absmax_range{}};
std::vector<problem const*> const formats{&e2m1_rows, &e3m0_rows, &e1m2_rows};
std::vector<any_grid> const grids{any_grid(fp_grid<2, 1>{}), any_grid(fp_grid<3, 0>{}), any_grid(fp_grid<1, 2>{})};

/// Inputs of which two features are large, and weights that are small there.
struct layer_with_outliers {
    matrix x = correlated_inputs(300, 40, 1);
    matrix w = random_matrix(25, 40, 3, 0.1F);

    layer_with_outliers() {
        for (index_t const j : {4, 21}) {
            x.col(j) *= 30;
            w.col(j) /= 30;
        }
    }

    double error(solution const& s, problem const& p, activation_quantizer const& input) const {
        return error_by_tokens(w, x, numbers_of(s, p), input.round(x));
    }
    double error(joint_search::answer const& a, std::vector<problem const*> const& from) const {
        return error(a.weights.weights, *from[a.weights.format], a.input);
    }
    /// Of rounding to nearest in ranges that hold all numbers.
    double minmax_error(problem const& p, any_grid const& grid) const {
        return error(rtn{}.solve(w, {}, p), p, activation_search{}.whole_range(x, grid));
    }
};

TEST(joint_search, is_not_worse_than_any_format_of_its_own) {
    layer_with_outliers const l;
    for (bool const shifted : {false, true}) {
        SCOPED_TRACE(shifted);
        joint_search const search{.candidates = {.steps = 40}, .shifted = shifted};
        auto const all = search(l.w, l.x, formats, grids);
        double const error = l.error(all, formats);
        EXPECT_NEAR(all.weights.weights.report.loss, error, 1e-4 * error);
        for (problem const* p : formats) {
            for (any_grid const& grid : grids) {
                std::vector<problem const*> const one{p};
                auto const single = search(l.w, l.x, one, std::span(&grid, 1));
                EXPECT_EQ(single.weights.format, 0U);
                EXPECT_TRUE(single.input.grid() == grid);
                double const single_error = l.error(single, one);
                EXPECT_LE(error, 1.001 * single_error); // the order of the turns decides the last permille
                EXPECT_LE(single_error, (1 + 1e-6) * l.minmax_error(*p, grid));
            }
        }
    }
}

TEST(joint_search, shifts_serve_outliers) {
    layer_with_outliers const l;
    double const minmax = l.minmax_error(e2m1_rows, grids[0]);
    double const baseline = l.error(joint_search{}(l.w, l.x, formats, grids), formats);
    auto const shifted = joint_search{.shifted = true}(l.w, l.x, formats, grids);
    EXPECT_LT(baseline, 0.95 * minmax);
    EXPECT_LT(l.error(shifted, formats), 0.75 * baseline);
    EXPECT_EQ(shifted.input.shifts().size(), 40U);
}

TEST(joint_search, as_published_helps_too) {
    layer_with_outliers const l;
    joint_search const paper{.candidates = {.spaced = range_candidates::spacing::bias}, .shifted = true};
    EXPECT_LT(l.error(paper(l.w, l.x, formats, grids), formats), l.minmax_error(e2m1_rows, grids[0]));
}

TEST(joint_search, more_rounds_are_not_worse) {
    layer_with_outliers const l;
    double before = std::numeric_limits<double>::infinity();
    for (int const rounds : {0, 1, 2, 6}) {
        joint_search const search{.shifted = true, .rounds = rounds};
        auto const found = search(l.w, l.x, formats, grids);
        double const error = l.error(found, formats);
        EXPECT_LE(error, 1.001 * before) << rounds;
        before = error;
        if (rounds == 0) { // the whole range, for which only the weights are searched
            EXPECT_TRUE(found.input == activation_search{.shifted = true}.whole_range(l.x, grids[0]));
        }
    }
}

TEST(joint_search, has_seen_what_its_input_becomes) {
    layer_with_outliers const l;
    auto const found = joint_search{.shifted = true}(l.w, l.x, formats, grids);
    layer_inputs const expected = test::inputs_of(found.input.round(l.x), l.x);
    EXPECT_EQ(found.seen.hessian().sum(), expected.hessian().sum());
    EXPECT_EQ(found.seen.hessian().tokens(), 300);
    EXPECT_EQ(found.seen.difference(), expected.difference());
}

TEST(choose_format, takes_the_best_of_exhaustive_searches) {
    layer_with_outliers const l;
    layer_inputs const known = test::inputs_of(l.x);
    for (index_t const finalists : {0, 4}) {
        output_search const search{.finalists = finalists};
        auto const chosen = choose_format(l.w, known, formats, search);
        double least = std::numeric_limits<double>::infinity();
        for (problem const* p : formats) {
            least = std::min(least, search.solve(l.w, known, *p).report.loss);
        }
        EXPECT_NEAR(chosen.weights.report.loss, least, 1e-9 * least);
    }
}

TEST(choose_format, survives_weights_that_make_up_for_all_that_inputs_lost) {
    // x~ = x / 2 and Q = W / 2, clipped: no error is left but that of sums.
    matrix const w =
        matrix::NullaryExpr(9, 20, [](index_t i, index_t j) { return static_cast<float>((i * j + j) % 3 - 1); });
    matrix const x = random_matrix(70, 20, 2);
    range_candidates const half{.steps = 1, .lowest = 0.5, .highest = 0.5};
    auto const chosen = choose_format(w, test::inputs_of(x, 0.5F * x), formats, {half});
    matrix const q = numbers_of(chosen.weights, *formats[chosen.format]);
    double const whole = (0.5F * x * w.transpose()).squaredNorm() / 70;
    EXPECT_NEAR(error_by_tokens(w, 0.5F * x, q, x), 0, 1e-5 * whole);
    EXPECT_NEAR(chosen.weights.report.loss, error_by_tokens(w, 0.5F * x, q, x), 1e-5 * whole);
}

TEST(joint_search, refuses_nothing_to_choose_from) {
    layer_with_outliers const l;
    EXPECT_EQ(failure_message([&] { joint_search{}(l.w, l.x, {}, grids); }),
              "format search: has nothing to choose from");
    EXPECT_EQ(failure_message([&] { joint_search{}(l.w, l.x, formats, {}); }),
              "format search: has nothing to choose from");
    EXPECT_EQ(failure_message([&] { joint_search{}(l.w, l.x.topRows(0), formats, grids); }), "inputs: are missing");
    matrix bad = l.x;
    bad(3, 3) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(failure_message([&] { joint_search{}(l.w, bad, formats, grids); }), "inputs: are not finite");
    EXPECT_EQ(failure_message([&] { choose_format(l.w, test::inputs_of(l.x), {}, {}); }),
              "format search: has no format to choose from");
}

TEST(decode, is_code_by_code) {
    layer_with_outliers const l;
    for (problem const* p : formats) {
        solution s = rtn{}.solve(l.w, {}, *p);
        EXPECT_EQ(decode(s), numbers_of(s, *p));
        permutation order;
        for (std::int32_t j = 0; j < 40; ++j) {
            order.order.push_back((j * 7 + 3) % 40);
        }
        s.map = input_map(order, 40);
        EXPECT_EQ(s.map.back(decode(s)), numbers_of(s, *p));
    }
}

TEST(with_scales, gptq_errs_less_than_the_search_with_the_very_same_scales) {
    layer_with_outliers const l;
    layer_inputs const known = test::inputs_of(l.x);
    problem_of const groups{fp_grid<2, 1>{}, per_group<8>{}, absmax_range{}};
    problem_of const blocks{fp_grid<2, 1>{}, per_block<>{4, 16}, absmax_range{}};
    for (problem const* p : {formats[0], static_cast<problem const*>(&groups), static_cast<problem const*>(&blocks)}) {
        solution const searched = output_search{}.solve(l.w, known, *p);
        with_scales const given(*p, searched);
        EXPECT_EQ(rtn{}.solve(l.w, {}, given).codes, searched.codes);
        for (bool const act : {false, true}) {
            solution const solved = gptq<>{.activation_order = act, .static_groups = true}.solve(l.w, known, given);
            EXPECT_EQ(solved.scales, searched.scales);
            EXPECT_LT(error_by_tokens(l.w, l.x, numbers_of(solved, given), l.x),
                      0.9 * error_by_tokens(l.w, l.x, numbers_of(searched, *p), l.x));
        }
    }
}

TEST(joint_search, threads_do_not_change_the_answer) {
    layer_with_outliers const l;
    thread_team two(2);
    joint_search const search{.candidates = {.steps = 20}, .shifted = true};
    auto const one = search(l.w, l.x, formats, grids);
    auto const both = search(l.w, l.x, formats, grids, two);
    EXPECT_EQ(one.weights.format, both.weights.format);
    EXPECT_EQ(one.weights.weights.codes, both.weights.weights.codes);
    EXPECT_EQ(one.weights.weights.scales, both.weights.weights.scales);
    EXPECT_TRUE(one.input == both.input);
}

/// Rounds like another problem, but to numbers that are infinite.
class infinite_problem final : public problem {
public:
    explicit infinite_problem(problem const& p) : problem(p), problem_(p) {}
    extents tile(extents shape) const override { return problem_.tile(shape); }
    tile_scale fit(matrix_view tile, tile_place place) const override { return problem_.fit(tile, place); }
    void round(index_t n, float const* weights, float const* scales, float const* zeros, code* codes,
               float* numbers) const override {
        problem_.round(n, weights, scales, zeros, codes, numbers);
        std::fill_n(numbers, n, std::numeric_limits<float>::infinity());
    }

private:
    problem const& problem_;
};

TEST(choose_format, never_chooses_what_has_no_finite_error) {
    layer_with_outliers const l;
    layer_inputs const known = layer_inputs::of(l.x);
    infinite_problem const bad(e2m1_rows);
    problem const* const fine = &e3m0_rows;
    metric_search const cosine{.metric = output_metric::cosine};
    for (bool const first : {true, false}) { // NaN first would win where less is asked for
        std::vector<problem const*> const two{first ? &bad : fine, first ? fine : &bad};
        std::size_t const good = first ? 1 : 0;
        EXPECT_EQ(choose_format(l.w, known, two, {}).format, good);
        EXPECT_EQ(choose_format(l.w, known, two, {.finalists = 0}).format, good);
        EXPECT_EQ(choose_format(l.w, l.x, l.x, two, cosine).format, good);
    }
    std::vector<problem const*> const none{&bad, &bad};
    std::string const message =
        "format search: finds no format whose error is finite; are weights or inputs too large?";
    EXPECT_EQ(failure_message([&] { choose_format(l.w, known, none, {}); }), message);
    EXPECT_EQ(failure_message([&] { choose_format(l.w, l.x, l.x, none, cosine); }), message);
    EXPECT_EQ(failure_message([&] { output_search{}.solve(l.w, known, bad); }),
              "range search: finds no range whose error is finite; are weights or inputs too large?");
}

TEST(activation_search, complains_where_no_error_is_finite) {
    layer_with_outliers const l;
    matrix const huge = 1e20F * l.w; // whose squares are no floats
    std::string const message =
        "range search: finds no range of the inputs whose error is finite; are weights or inputs too large?";
    for (index_t const finalists : {0, 6}) {
        activation_search const search{.finalists = finalists};
        EXPECT_EQ(failure_message([&] { search(l.x, huge, 1.1F * huge, grids); }), message);
    }
}

} // namespace
