// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/activations.hpp"
#include "detent/quantizer/evidence_needs.hpp"
#include "detent/quantizer/layer_quantizer.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/searched.hpp"
#include "io/failure_message.hpp"
#include "solver/passing_tokens.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::error_by_tokens;
using test::random_matrix;

using e3m0 = fp_grid<3, 0>;
using e1m2 = fp_grid<1, 2>;
using any_fp4 = one_of<e2m1, e1m2, e3m0>;

matrix const searched_x = correlated_inputs(300, 48, 1);
matrix const searched_w = random_matrix(24, 48, 3);
layer_inputs const searched_known = layer_inputs::of(searched_x);

double error_of(matrix const& weights, quantization const& q, matrix const& inputs) {
    matrix const rounded = q.input ? q.input->round(inputs) : inputs;
    return error_by_tokens(weights, inputs, dequantize(q.weights), rounded);
}

TEST(searched, of_one_format_is_the_search_by_the_output) {
    auto const expect = [&](problem const& p, layer_inputs const& inputs) {
        solution const expected = output_search{}.solve(searched_w, inputs, p);
        solution const found = searched<>{}.solve(searched_w, inputs, p);
        EXPECT_EQ(found.codes, expected.codes);
        EXPECT_EQ(found.scales, expected.scales);
        EXPECT_EQ(found.report.loss, expected.report.loss);
        range_candidates const few{.steps = 7};
        EXPECT_EQ((searched<>{.candidates = few, .finalists = 0}.solve(searched_w, inputs, p).scales),
                  (output_search{few, 0}.solve(searched_w, inputs, p).scales));
        // Another solver chooses codes for those scales.
        solution const swept = searched<gptq<>>{}.solve(searched_w, inputs, p);
        EXPECT_EQ(swept.scales, expected.scales);
        EXPECT_EQ(swept.codes, gptq<>{}.solve(searched_w, inputs, with_scales(p, expected)).codes);
    };
    layer_inputs const streams = test::inputs_of(test::moved(searched_x, 0.1F, 5), searched_x);
    for (layer_inputs const* inputs : {&searched_known, &streams}) {
        expect(problem_of{int_grid<3>{}, per_channel{}, minmax_range{}}, *inputs);
        expect(problem_of{e2m1{}, per_group<20>{}, absmax_range{}}, *inputs);
        expect(problem_of{int_grid<3>{}, per_block<8, 16>{}, minmax_range{}}, *inputs);
    }
}

TEST(searched, chooses_the_better_format_of_a_choice) {
    int k = 0;
    matrix const uniform = matrix::NullaryExpr(24, 48, [&] { return static_cast<float>((k += 7919) % 101 - 50) / 50; });
    matrix const steep = matrix::NullaryExpr(24, 48, [&] { // near powers of two
        k = (k + 7919) % 1009;
        return std::ldexp(k % 2 == 0 ? 1.0F : -1.0F, k % 7) * (1 + static_cast<float>(k % 11 - 5) / 100);
    });
    auto const expect = [&](matrix const& weights, std::vector<float> const& table) {
        quantizer<any_fp4, per_channel, searched<>> const open;
        quantization const found = as_quantization(open(weights, searched_known));
        auto const alone = [&](auto const& q) {
            return error_of(weights, as_quantization(q(weights, searched_known)), searched_x);
        };
        double const least = std::min({alone(quantizer<e2m1, per_channel, searched<>>{}),
                                       alone(quantizer<e1m2, per_channel, searched<>>{}),
                                       alone(quantizer<e3m0, per_channel, searched<>>{})});
        EXPECT_NEAR(error_of(weights, found, searched_x), least, 1e-4 * least);
        EXPECT_EQ(found.weights.table, table);
        // The solver works in the format that was chosen.
        quantizer<any_fp4, per_channel, searched<gptq<>>> const swept;
        quantization const better = as_quantization(swept(weights, searched_known));
        EXPECT_EQ(better.weights.table, table);
        EXPECT_LT(error_of(weights, better, searched_x), error_of(weights, found, searched_x));
        quantizer<any_fp4, per_channel, searched<owq<>>> const weak{.solver = {.inner = {.columns = 2}}};
        quantization const kept = as_quantization(weak(weights, searched_known));
        EXPECT_EQ(kept.weights.weak.count(), 2);
        EXPECT_LT(error_of(weights, kept, searched_x), error_of(weights, better, searched_x));
    };
    auto const numbers = [](auto const& grid) {
        auto const table = table_of(grid);
        return std::vector<float>(table.begin(), table.end());
    };
    expect(uniform, numbers(e1m2{}));
    expect(steep, numbers(e3m0{}));
}

TEST(searched, products_with_a_choice_are_those_of_its_numbers) {
    quantizer<any_fp4, per_group<16>, searched<gptq<>>> const q;
    auto const result = q(searched_w, searched_known);
    matrix y(searched_x.rows(), searched_w.rows()); // (token, out)
    multiply(result, searched_x, y);
    matrix const expected = searched_x * dequantize(result.packed()).transpose();
    EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 1e-4 * expected.cwiseAbs().maxCoeff());
}

/// Each input excites one weight. One weight is far larger than the others, which squares of errors protect and
/// absolute errors sacrifice.
TEST(searched, minds_the_metric) {
    matrix const unit = matrix::Identity(64, 64);
    matrix row = matrix::Constant(1, 64, 0.3F);
    row(0, 0) = 7;
    layer_inputs const each = layer_inputs::of(unit);
    problem_of const p{int_grid<4, zero::none>{}, per_channel{}, absmax_range{}, float_format::f32};
    solution const squares = searched<>{}.solve(row, each, p);
    solution const absolute = searched<>{.metric = output_metric::absolute}.solve(row, each, p);
    EXPECT_LT(absolute.scales.at(0, 0).scale, 0.5F * squares.scales.at(0, 0).scale);
    auto const missed = [&](solution const& s) { return matrix(decode(s) - row).cwiseAbs().sum(); };
    EXPECT_LT(missed(absolute), 0.5F * missed(squares));
    EXPECT_LT((decode(squares) - row).squaredNorm(), 0.5F * (decode(absolute) - row).squaredNorm());

    // By its own distance, no metric finds anything better than another.
    constexpr std::array all{output_metric::squares, output_metric::absolute, output_metric::weighted_squares,
                             output_metric::doubly_weighted, output_metric::cosine};
    problem_of const rows{int_grid<2>{}, per_channel{}, minmax_range{}};
    auto const distance = [&](output_metric metric, matrix const& q) {
        matrix const wanted = searched_w * searched_x.transpose(); // (out, token)
        matrix const got = q * searched_x.transpose();
        double sum = 0;
        for (index_t i = 0; i < wanted.rows(); ++i) {
            sum += output_distance(metric, wanted.cols(), &wanted(i, 0), 1, &got(i, 0), 1);
        }
        return sum;
    };
    std::vector<matrix> found;
    for (output_metric const metric : all) {
        found.push_back(decode(searched<>{.metric = metric, .finalists = 0}.solve(searched_w, searched_known, rows)));
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (std::size_t j = 0; j < all.size(); ++j) {
            EXPECT_LE(distance(all[i], found[i]), (1 + 1e-4) * distance(all[i], found[j])) << i << ", " << j;
            EXPECT_EQ(i == j, found[i] == found[j]) << i << ", " << j;
        }
    }
}

TEST(searched, by_another_metric_needs_the_inputs) {
    problem_of const p{int_grid<3>{}, per_channel{}, minmax_range{}};
    layer_inputs const not_kept(searched_known.hessian());
    EXPECT_EQ(searched<>{}.solve(searched_w, not_kept, p).codes,
              searched<>{}.solve(searched_w, searched_known, p).codes);
    for (auto const metric : {output_metric::absolute, output_metric::cosine}) {
        EXPECT_EQ(failure_message([&] { searched<>{.metric = metric}.solve(searched_w, not_kept, p); }),
                  "format search: by this metric needs the inputs, kept");
    }
    auto const message = [&](searched<> const& solver, layer_inputs const& known) {
        return failure_message([&] { solver.solve(searched_w, known, p); });
    };
    EXPECT_EQ(message({}, layer_inputs(48)), "hessian: has seen no tokens");
    auto const seen = layer_inputs::of(random_matrix(60, 48, 1));
    EXPECT_EQ(message({.finalists = -1}, seen), "range search: its number of finalists is -1, not 0 or more");
    EXPECT_EQ(message({.candidates = {.steps = 0}}, seen), "range search: needs a step or more, and ranges above 0");
    EXPECT_EQ(failure_message([&] { searched<>{}.solve(searched_w, layer_inputs(7), p); }),
              "hessian: has 7 features, the weights have 48 columns");
}

TEST(searched, chooses_ranges_of_weights_and_static_inputs_in_turns) {
    using static_fp4 = activations<e2m1, per_tensor>;
    problem_of const p{e2m1{}, per_channel{}, absmax_range{}};
    std::vector<problem const*> const formats{&p};
    std::vector<any_grid> const grids{any_grid(e2m1{}, "e2m1")};
    matrix loud = searched_x;
    loud.col(4) *= 20;
    layer_inputs const inputs = layer_inputs::of(loud);

    quantizer<e2m1, per_channel, searched<>, absmax_range, static_fp4> const q;
    quantization const found = as_quantization(q(searched_w, inputs));
    auto const expected = joint_search{}(searched_w, loud, formats, grids);
    EXPECT_TRUE(*found.input == expected.input);
    EXPECT_TRUE(found.weights == pack(expected.weights.weights));
    quantizer<e2m1, per_channel, rtn, absmax_range, static_fp4> const whole;
    EXPECT_LT(error_of(searched_w, found, loud),
              0.95 * error_of(searched_w, as_quantization(whole(searched_w, inputs)), loud));

    // Another solver sees what the inputs become.
    quantizer<e2m1, per_channel, searched<gptaq<>>, absmax_range, static_fp4> const swept;
    quantization const better = as_quantization(swept(searched_w, inputs));
    EXPECT_TRUE(*better.input == expected.input);
    EXPECT_EQ(better.weights.scales, found.weights.scales);
    EXPECT_LT(error_of(searched_w, better, loud), error_of(searched_w, found, loud));

    quantizer<e2m1, per_channel, searched<>, absmax_range, static_fp4> const shifting{.solver = {.shifted = true}};
    quantization const shifted = as_quantization(shifting(searched_w, inputs));
    EXPECT_EQ(shifted.input->shifts().size(), 48U);
    EXPECT_LT(error_of(searched_w, shifted, loud), 0.9 * error_of(searched_w, found, loud));
}

TEST(searched, leaves_inputs_with_ranges_of_their_own_to_their_tokens) {
    quantizer<any_fp4, per_group<16>, searched<gptq<>>, absmax_range, activations<e2m1>> const q;
    auto const result = q(searched_w, searched_known);
    EXPECT_TRUE(result.input().fixed().empty());
    EXPECT_EQ(result.input().grid(), any_grid(e2m1{}, "e2m1"));
    quantizer<any_fp4, per_group<16>, searched<gptq<>>> const floats;
    EXPECT_EQ(result.weights().packed(), floats(searched_w, searched_known).packed());
}

TEST(searched, complains_of_inputs_that_are_too_large_or_not_finite) {
    std::string const too_large =
        "format search: finds no format whose error is finite; are weights or inputs too large?";
    problem_of const p{e2m1{}, per_channel{}, absmax_range{}};
    for (float const huge : {1e19F, 1e25F, std::numeric_limits<float>::quiet_NaN()}) {
        matrix broken = searched_x;
        broken.col(5) *= huge;
        layer_inputs const inputs = layer_inputs::of(broken);
        EXPECT_EQ(failure_message([&] { searched<>{}.solve(searched_w, inputs, p); }), too_large) << huge;
        EXPECT_EQ(failure_message([&] { searched<gptq<>>{}.solve(searched_w, inputs, p); }), too_large) << huge;
        for (auto const metric : {output_metric::weighted_squares, output_metric::cosine}) {
            searched<> const solver{.metric = metric};
            if (std::isnan(huge)) {
                EXPECT_EQ(failure_message([&] { solver.solve(searched_w, inputs, p); }), "inputs: are not finite");
            } else { // in double these are still numbers
                EXPECT_TRUE(std::isfinite(solver.solve(searched_w, inputs, p).report.loss));
            }
        }
        quantizer<any_fp4, per_group<16>, searched<>> const open;
        EXPECT_EQ(failure_message([&] { open(searched_w, inputs); }), too_large) << huge;
        quantizer<e2m1, per_channel, searched<>, absmax_range, activations<e2m1, per_tensor>> const joint;
        EXPECT_NE(failure_message([&] { joint(searched_w, inputs); }), "") << huge;
    }
}

TEST(searched, gives_the_same_bits_for_any_executor) {
    thread_team two(2);
    quantizer<any_fp4, per_group<16>, searched<gptq<>>> const q;
    EXPECT_EQ(q(searched_w, searched_known, two).packed(), q(searched_w, searched_known).packed());
    quantizer<int_grid<3>, per_channel, searched<>> const cosine{.solver = {.metric = output_metric::cosine}};
    EXPECT_EQ(cosine(searched_w, searched_known, two).packed(), cosine(searched_w, searched_known).packed());
}

} // namespace
