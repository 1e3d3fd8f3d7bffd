// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <vector>

#include <Eigen/Dense>
#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/asymmetric.hpp"
#include "nn/random_matrix.hpp"
#include "solver/correlated_inputs.hpp"
#include "solver/fallbacks.hpp"

namespace {

using namespace detent;

problem_of const int3_channels{int_grid<3>{}, per_channel{}, minmax_range{}};

/// Inputs of both streams: those of the quantized one miss some of every feature and have noise.
struct streams {
    matrix floats;    // (token, in)
    matrix quantized; // (token, in)
    layer_inputs known;

    streams(index_t tokens, index_t in, float kept, float noise)
        : floats(test::correlated_inputs(tokens, in, 5)), known(in) {
        quantized = kept * floats + noise * test::random_matrix(tokens, in, 6);
        known.add(quantized, floats);
    }

    double error(matrix const& w, matrix const& q) const {
        return (floats * w.transpose() - quantized * q.transpose()).cast<double>().squaredNorm();
    }
};

matrix decoded(solution const& s) {
    matrix q(s.shape.rows, s.shape.cols);
    for (index_t i = 0; i < s.shape.rows; ++i) {
        for (index_t j = 0; j < s.shape.cols; ++j) {
            q(i, j) = decode(int_grid<3>{}, s.code_at(i, j), s.scale_at(i, j));
        }
    }
    return q;
}

TEST(corrected_weights, solve_the_damped_least_squares_problem) {
    streams const s(300, 40, 0.8F, 0.2F);
    matrix const w = test::random_matrix(7, 40, 1);
    for (bool const by_activation : {false, true}) {
        hessian_factor const f = factor(s.known.hessian(), {0.01, by_activation});
        Eigen::MatrixXd const x = s.quantized.cast<double>();
        double const damping = 0.01 * (2.0 / 300 * x.cwiseAbs2().colwise().sum()).mean();
        Eigen::MatrixXd const identity = Eigen::MatrixXd::Identity(40, 40);
        Eigen::MatrixXd const h = 2.0 / 300 * x.transpose() * x + damping * identity;
        Eigen::MatrixXd const g = 2.0 / 300 * s.floats.cast<double>().transpose() * x + damping * identity;
        Eigen::MatrixXd const whole = w.cast<double>() * g * h.inverse();
        matrix const ours = corrected_weights(w, s.known, f, 1, correction::whole);
        EXPECT_LE((ours.cast<double>() - whole).cwiseAbs().maxCoeff(), 2e-4); // H is of float sums
        matrix const half = corrected_weights(w, s.known, f, 0.5, correction::whole);
        EXPECT_LE((half - 0.5F * (w + ours)).cwiseAbs().maxCoeff(), 1e-6);
    }
}

TEST(corrected_weights, are_scaled_back_where_a_stream_was_scaled) {
    streams const s(300, 20, 0.8F, 0);
    matrix const w = test::random_matrix(7, 20, 1);
    matrix const ours = corrected_weights(w, s.known, factor(s.known.hessian(), {1e-9, false}), 1, correction::whole);
    EXPECT_LE((ours - w / 0.8F).cwiseAbs().maxCoeff(), 1e-3);
}

TEST(corrected_weights, by_later_columns_are_those_of_the_published_matrix) {
    // P = strictly upper part of (C U^T) times U, with U^T U the inverse of the damped Hessian; W* = W + a W P.
    streams const s(300, 40, 0.8F, 0.2F);
    matrix const w = test::random_matrix(7, 40, 1);
    hessian_factor const f = factor(s.known.hessian(), {0.01, false});
    Eigen::MatrixXd const h = f.r * f.r.transpose();
    Eigen::MatrixXd const u = Eigen::LLT<Eigen::MatrixXd>(h.inverse()).matrixU();
    Eigen::MatrixXd const product = s.known.difference() * u.transpose();
    Eigen::MatrixXd const p = Eigen::MatrixXd(product.triangularView<Eigen::StrictlyUpper>()) * u;
    Eigen::MatrixXd const expected = w.cast<double>() * (Eigen::MatrixXd::Identity(40, 40) + 0.25 * p);
    matrix const ours = corrected_weights(w, s.known, f, 0.25, correction::later_columns);
    EXPECT_LE((ours.cast<double>() - expected).cwiseAbs().maxCoeff(), 1e-5);
    EXPECT_GT((ours - w).cwiseAbs().maxCoeff(), 1e-2);
    EXPECT_EQ(ours.col(0), w.col(0));
}

TEST(asymmetric_gptq, is_gptq_where_the_streams_agree) {
    streams const s(200, 30, 1, 0);
    matrix const w = test::random_matrix(9, 30, 1);
    auto const expected = gptq<>{}.solve(w, s.known.hessian(), int3_channels).codes;
    EXPECT_EQ(gptaq<>{}.solve(w, s.known, int3_channels).codes, expected);
    EXPECT_EQ(qronos<>{}.solve(w, s.known, int3_channels).codes, expected);
}

TEST(asymmetric_gptq, comes_nearer_to_the_float_output) {
    streams const s(2000, 64, 0.9F, 0.05F);
    matrix const w = test::random_matrix(32, 64, 1);
    double const plain = s.error(w, decoded(gptq<>{}.solve(w, s.known.hessian(), int3_channels)));
    double const partly = s.error(w, decoded(gptaq<>{}.solve(w, s.known, int3_channels)));
    double const whole = s.error(w, decoded(qronos<>{}.solve(w, s.known, int3_channels)));
    EXPECT_LT(partly, plain);
    EXPECT_LT(whole, 0.8 * plain);
}

TEST(asymmetric_gptq, gives_the_same_codes_for_any_number_of_threads) {
    streams const s(300, 150, 0.9F, 0.1F);
    matrix const w = test::random_matrix(140, 150, 1);
    qronos<> const solver{.rounding = {.activation_order = true}};
    problem_of const p{int_grid<3>{}, per_group<16>{}, minmax_range{}, float_format::f32};
    solution const expected = solver.solve(w, s.known, p);
    for (int const count : {1, 2, 3}) {
        thread_team executor(count);
        solution const found = solver.solve(w, s.known, p, executor);
        EXPECT_EQ(found.codes, expected.codes);
        EXPECT_EQ(found.scales, expected.scales);
        EXPECT_EQ(found.report.loss, expected.report.loss);
    }
}

TEST(asymmetric_gptq, rounds_to_nearest_where_nothing_was_seen_and_that_is_allowed) {
    matrix const w = test::random_matrix(4, 6, 1);
    EXPECT_THROW(gptaq<>{}.solve(w, layer_inputs(6), int3_channels), error);
    solution const s = gptaq<>{.rounding = {.or_rtn = true}}.solve(w, layer_inputs(6), int3_channels);
    EXPECT_EQ(s.codes, rtn{}.solve(w, {}, int3_channels).codes);
    EXPECT_FALSE(s.report.fallback.empty());
    EXPECT_THROW(gptaq<>{}.solve(w, layer_inputs(7), int3_channels), error);
    layer_inputs one_stream(6);
    one_stream.add(test::random_matrix(9, 6, 2));
    EXPECT_THROW(gptaq<>{}.solve(w, one_stream, int3_channels), error);
    constexpr double none = std::numeric_limits<double>::quiet_NaN();
    EXPECT_THROW(gptaq<>{.strength = none}.solve(w, layer_inputs(6), int3_channels), error);
}

TEST(asymmetric_gptq, rounds_the_weights_of_dead_inputs_to_nearest) {
    test::expect_dead_inputs_rounded_to_nearest(gptaq<>{});
    test::expect_dead_inputs_rounded_to_nearest(qronos<>{.rounding = {.activation_order = true}});
}

} // namespace
