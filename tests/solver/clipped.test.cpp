// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/solver/clipped.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/owq.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::dense;
using test::random_matrix;

/// The damped Hessian, from which GPTQ and its kin start.
Eigen::MatrixXd damped(hessian const& h) {
    Eigen::MatrixXd d = dense(h);
    d.diagonal().array() += 0.01 * d.diagonal().mean();
    return d;
}

/// d H d^T of each row, in double and from the packed numbers.
Eigen::VectorXd slow_losses(matrix const& w, solution const& s, Eigen::MatrixXd const& h) {
    Eigen::MatrixXd const d = (dequantize(pack(s)) - w).cast<double>();
    return (d * h).cwiseProduct(d).rowwise().sum();
}

/// No row of tiles loses more than it does with `inner` alone, some lose clearly less, and two threads give the same
/// bits.
template <class Inner> void expect_no_row_loses(problem const& p, Inner const& inner, double part) {
    matrix const w = random_matrix(40, 64, 5);
    hessian const h = hessian::of(correlated_inputs(300, 64, 1));
    Eigen::MatrixXd const d = damped(h);
    clipped<Inner> const solver{.inner = inner};
    solution const s = solver.solve(w, h, p);
    Eigen::VectorXd const with = slow_losses(w, s, d);
    Eigen::VectorXd const without = slow_losses(w, solve_with(inner, w, h, p), d);
    for (index_t top = 0; top < 40; top += s.tile.rows) {
        index_t const count = std::min(s.tile.rows, 40 - top);
        EXPECT_LE(with.segment(top, count).sum(), (1 + 1e-5) * without.segment(top, count).sum()) << "row " << top;
    }
    EXPECT_LT(with.sum(), part * without.sum());
    thread_team two(2);
    solution const again = solver.solve(w, h, p, two);
    EXPECT_EQ(again.codes, s.codes);
    EXPECT_EQ(again.scales, s.scales);
}

TEST(clipped, loses_in_no_row_of_tiles_against_its_inner_solver) {
    expect_no_row_loses(problem_of{int_grid<2>{}, per_channel{}, minmax_range{}}, gptq<>{}, 0.95);
    expect_no_row_loses(problem_of{int_grid<3>{}, per_channel{}, minmax_range{}}, gptq<>{.activation_order = true},
                        0.98);
    expect_no_row_loses(problem_of{int_grid<2>{}, per_group<16>{}, minmax_range{}}, gptq<>{}, 0.98);
    expect_no_row_loses(problem_of{e2m1{}, per_group<24>{}, absmax_range{}}, gptq<>{.static_groups = true}, 1);
    expect_no_row_loses(problem_of{int_grid<3, zero::none>{}, per_channel{}, absmax_range{}}, obq{}, 0.98);
    expect_no_row_loses(problem_of{test::five{}, per_channel{}, absmax_range{}}, gptq<>{},
                        1); // has codes without numbers
    expect_no_row_loses(problem_of{int_grid<2>{}, per_channel{}, minmax_range{}}, rtn{}, 0.95);
    expect_no_row_loses(problem_of{int_grid<3>{}, per_group<16>{}, minmax_range{}}, rtn{}, 0.98);
}

TEST(clipped, goes_with_any_granularity) {
    expect_no_row_loses(problem_of{int_grid<2>{}, per_block<8, 16>{}, minmax_range{}}, gptq<>{}, 1);
    expect_no_row_loses(problem_of{int_grid<2>{}, per_tile{3, 20}, minmax_range{}}, gptq<>{}, 1);
    expect_no_row_loses(problem_of{int_grid<2>{}, per_tensor{}, minmax_range{}}, gptq<>{}, 0.95);
    expect_no_row_loses(problem_of{int_grid<2>{}, per_block<8, 16>{}, minmax_range{}}, rtn{}, 0.98);
    expect_no_row_loses(problem_of{nf4{}, per_tile{7, 0}, absmax_range{}}, rtn{}, 1);
}

/// The share of 20 layers whose output is nearer to the float model's with clips.
template <Granularity P, int Bits> double share_of_better_layers() {
    int better = 0;
    for (unsigned seed = 0; seed < 20; ++seed) {
        matrix const w = random_matrix(32, 64, 100 + seed);
        hessian const h = hessian::of(correlated_inputs(200, 64, 2 * seed));
        problem_of const p{int_grid<Bits>{}, P{}, minmax_range{}};
        auto const error = [&](auto const& solver) { return h.quadratic(w - dequantize(pack(solver.solve(w, h, p)))); };
        better += error(clipped<gptq<>>{}) < error(gptq<>{}) ? 1 : 0;
    }
    return better / 20.0;
}

TEST(clipped, makes_nearly_all_layers_better) {
    EXPECT_GE((share_of_better_layers<per_channel, 2>()), 0.9);
    EXPECT_GE((share_of_better_layers<per_channel, 3>()), 0.9);
    EXPECT_GE((share_of_better_layers<per_group<16>, 2>()), 0.9);
    EXPECT_GE((share_of_better_layers<per_group<16>, 3>()), 0.9);
}

TEST(clipped, does_not_depend_on_units) {
    matrix const w = random_matrix(24, 64, 5);
    matrix const x = correlated_inputs(300, 64, 1);
    problem_of const p{int_grid<2>{}, per_group<16>{}, minmax_range{}, float_format::f32};
    clipped<gptq<>> const solver{};
    auto const codes = [&](float of_weights, float of_inputs) {
        return solver.solve(of_weights * w, hessian::of(of_inputs * x), p).codes;
    };
    auto const expected = codes(1, 1);
    EXPECT_EQ(codes(0x1p-10F, 0x1p10F), expected); // exact
    auto const rounded = codes(1e-3F, 1e3F);
    index_t same = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        same += rounded[i] == expected[i] ? 1 : 0;
    }
    EXPECT_GE(same, 0.98 * static_cast<double>(expected.size()));
}

TEST(clipped, has_weak_columns_around_and_inside) {
    matrix const w = random_matrix(24, 64, 5);
    matrix x = correlated_inputs(300, 64, 1);
    x.col(7) *= 6;
    hessian const h = hessian::of(x);
    auto const error = [&](solution const& s) { return h.quadratic(w - dequantize(pack(s))); };
    auto const expect = [&](problem const& p) {
        solution const plain = owq<>{.columns = 3}.solve(w, h, p);
        solution const around = owq<clipped<gptq<>>>{.columns = 3}.solve(w, h, p);
        solution const inside = clipped<owq<gptq<>>>{.inner = {.columns = 3}}.solve(w, h, p);
        EXPECT_EQ(around.weak.count(), 3);
        EXPECT_EQ(inside.weak.count(), 3);
        EXPECT_LT(error(around), error(plain));
        EXPECT_LE(error(inside), 1.001 * error(plain));
    };
    expect(problem_of{int_grid<2>{}, per_channel{}, minmax_range{}});
    expect(problem_of{int_grid<2>{}, per_group<16>{}, minmax_range{}});
    // Weak columns outside of clips are no part of the ranges that are clipped.
    problem_of const p{int_grid<2>{}, per_channel{}, minmax_range{}};
    matrix huge = w;
    huge.col(7) *= 1000;
    EXPECT_EQ((owq<clipped<gptq<>>>{.columns = 1, .compensate = false}.solve(huge, h, p).scales),
              (owq<clipped<gptq<>>>{.columns = 1, .compensate = false}.solve(w, h, p).scales));
}

TEST(clipped, clips_the_weights_that_a_solver_has_corrected) {
    matrix const floats = correlated_inputs(300, 64, 1);
    layer_inputs known(64);
    known.add(0.9F * floats + random_matrix(300, 64, 4, 0.02F), floats);
    matrix const w = random_matrix(24, 64, 5);
    problem_of const p{int_grid<2>{}, per_group<16>{}, minmax_range{}};
    solution const s = clipped<gptaq<>>{}.solve(w, known, p);
    solution const expected = clipped<gptq<>>{}.solve(gptaq<>{}.correct(w, known), known.hessian(), p);
    EXPECT_EQ(s.codes, expected.codes);
    EXPECT_EQ(s.scales, expected.scales);
    EXPECT_NE(s.codes, clipped<gptq<>>{}.solve(w, known.hessian(), p).codes);
    auto const error = [&](solution const& t) { return known.output_error(w, dequantize(pack(t))); };
    EXPECT_LT(error(s), error(gptaq<>{}.solve(w, known, p)));
    EXPECT_EQ((owq<clipped<gptaq<>>>{.columns = 2}.solve(w, known, p).weak.count()), 2);
}

TEST(clipped, can_share_a_factor_and_says_what_went_wrong_with_it) {
    matrix const w = random_matrix(24, 64, 5);
    hessian const h = hessian::of(correlated_inputs(300, 64, 1));
    problem_of const p{int_grid<2>{}, per_channel{}, minmax_range{}};
    clipped<gptq<>> const solver{.inner = {.activation_order = true}};
    EXPECT_EQ(solver.solve(w, factor(h, solver.factoring()), p).codes, solver.solve(w, h, p).codes);
    EXPECT_TRUE(failure_message([&] { solver.solve(w, hessian(64), p); }).starts_with("hessian: has seen no tokens"));
    EXPECT_EQ(failure_message([&] { clipped<>{}.solve(w, hessian(64), p); }), "hessian: has seen no tokens");
    solution const blind = clipped<gptq<>>{.inner = {.or_rtn = true}}.solve(w, hessian(64), p);
    EXPECT_EQ(blind.report.fallback, "no input was ever seen");
    EXPECT_EQ(blind.codes, rtn{}.solve(w, {}, p).codes);
}

/// A user's own way to clip: the ends of each tile shrink together, by the part with the least error of the weights.
template <Solver Inner> struct shrunk {
    using evidence = typename Inner::evidence;

    Inner inner = {};

    solution solve(matrix_view w, evidence const& known, problem const& p, executor_ref executor = {}) const {
        solution s = p.begin(w);
        for (index_t i = 0; i < s.scales.tiles.rows; ++i) {
            for (index_t j = 0; j < s.scales.tiles.cols; ++j) {
                index_t const col = s.first_of_tile(j);
                matrix const tile = block_of(w, i * s.tile.rows, col, std::min(s.tile.rows, w.rows() - i * s.tile.rows),
                                             s.first_of_tile(j + 1) - col);
                s.scales.set(i, j, best(tile, p));
            }
        }
        return solve_with(inner, w, known, with_scales(p, s), executor);
    }

    friend bool operator==(shrunk const&, shrunk const&) = default;

private:
    static tile_scale best(matrix const& tile, problem const& p) {
        tile_scale found{};
        double least = std::numeric_limits<double>::infinity();
        for (float const part : {1.0F, 0.9F, 0.8F, 0.7F}) {
            interval const kept = interval::of(p, tile).scaled(part);
            tile_scale const s = lay_over(p.numbers(), p.has_zero(), kept, p.format());
            std::vector<float> const scales(static_cast<std::size_t>(tile.size()), s.scale);
            std::vector<float> const zeros(scales.size(), s.zero);
            std::vector<code> codes(scales.size());
            matrix rounded(tile.rows(), tile.cols());
            p.round(tile.size(), tile.data(), scales.data(), zeros.data(), codes.data(), rounded.data());
            if (double const e = (rounded - tile).squaredNorm(); e < least) {
                least = e;
                found = s;
            }
        }
        return found;
    }
};

TEST(clipped, of_a_user) {
    matrix const w = random_matrix(12, 64, 5);
    hessian const h = hessian::of(correlated_inputs(300, 64, 1));
    problem_of const p{int_grid<2>{}, per_group<16>{}, minmax_range{}, float_format::f32};
    auto const loss = [&](solution const& s) { return h.quadratic(w - dequantize(pack(s))); };
    solution const s = shrunk<gptq<>>{}.solve(w, h, p);
    EXPECT_LT(loss(s), loss(gptq<>{.static_groups = true}.solve(w, h, p)));
    // Scales that are given are kept, so that groups are static whatever the option says, and maps have no order.
    EXPECT_EQ(s.codes, shrunk<gptq<>>{.inner = {.static_groups = true}}.solve(w, h, p).codes);
    EXPECT_TRUE(shrunk<gptq<>>{.inner = {.activation_order = true}}.solve(w, h, p).map.empty());
    // The same scales as a range of a quantizer.
    given_range const given{.scales = s.scales, .tile = s.tile};
    problem_of const same{int_grid<2>{}, per_group<16>{}, given, float_format::f32};
    EXPECT_EQ(gptq<>{}.solve(w, h, same).codes, s.codes);
    EXPECT_EQ((owq<shrunk<gptq<>>>{.columns = 2}.solve(w, h, p).weak.count()), 2);
}

TEST(clipped, options_are_checked) {
    matrix const w = random_matrix(8, 32, 5);
    hessian const h = hessian::of(correlated_inputs(100, 32, 1));
    problem_of const p{int_grid<2>{}, per_channel{}, minmax_range{}};
    auto const message = [&](clip_learning how) {
        return failure_message([&] { clipped<>{.learning = how}.solve(w, h, p); });
    };
    EXPECT_EQ(message({.steps = -1}), "clipping: its number of steps is -1, not 0 or more");
    EXPECT_EQ(message({.rate = 0}), "clipping: its learning rate is 0.000000, not positive");
    EXPECT_EQ(message({.rate = -0.1}), "clipping: its learning rate is -0.100000, not positive");
    EXPECT_EQ(message({.steps = 0}), "");
}

TEST(clipped, has_nothing_to_do_where_scales_are_given) {
    matrix const w = random_matrix(8, 32, 5);
    hessian const h = hessian::of(correlated_inputs(100, 32, 1));
    given_range given{.scales = {{8, 32}, {1, 32}, float_format::f32, true}, .tile = {1, 32}};
    std::ranges::fill(given.scales.scales, 0.5F);
    problem_of const p{int_grid<3>{}, per_channel{}, given, float_format::f32};
    std::string const expected = "clipping: has nothing to learn where scales are given";
    EXPECT_EQ(failure_message([&] { clipped<>{}.solve(w, h, p); }), expected);
    EXPECT_EQ(failure_message([&] { clipped<gptq<>>{}.solve(w, h, p); }), expected);
    EXPECT_EQ(failure_message([&] { clipped<owq<>>{.inner = {.columns = 1}}.solve(w, h, p); }), expected);
    EXPECT_EQ(failure_message([&] { clipped<>{}.solve(w, hessian(9), p); }),
              "hessian: has 9 features, the weights have 32 columns");
}

} // namespace
