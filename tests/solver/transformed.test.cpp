// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/activations.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/scale/minmax.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/owq.hpp"
#include "detent/solver/transformed.hpp"
#include "detent/transform/hadamard.hpp"
#include "detent/transform/in_order.hpp"
#include "detent/transform/power_of_two.hpp"
#include "detent/transform/smooth.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_map.hpp"
#include "solver/passing_tokens.hpp"

namespace {

using namespace detent;
using test::random_matrix;

/// A transform of a user's own: some signs change, and inputs are put in a fixed order.
struct shuffled {
    unsigned seed = 1;

    input_map fit(matrix_view w, layer_inputs const&) const {
        diagonal signs;
        for (index_t k = 0; k < w.cols(); ++k) {
            signs.factors.push_back(k % 3 == 0 ? -1.0F : 1.0F);
        }
        input_map map(std::move(signs), w.cols());
        return map.then(permutation{test::random_order(w.cols(), seed)}, w.cols());
    }

    bool operator==(shuffled const&) const = default;
};
static_assert(Transform<shuffled> && Solver<transformed<shuffled>> && Solver<transformed<shuffled, gptq<>>>);
static_assert(!Transform<rtn> && !Transform<int>);
static_assert(wraps<wrapping::map, transformed<shuffled>> && !wraps<wrapping::map, gptq<>>);

problem_of const groups{int_grid<3>{}, per_group<16>{}, minmax_range{}};
problem_of const rows{int_grid<3>{}, per_channel{}, minmax_range{}};

struct layer {
    matrix x = test::correlated_inputs(300, 64, 1); // (token, in)
    matrix w = random_matrix(24, 64, 3);            // (out, in)
    layer_inputs known = layer_inputs::of(x);
};

/// Rounds what it should: the mapped weights, with what is known of mapped inputs.
template <Transform T, Solver Inner> void expect_inner_of_mapped(T const& transform, Inner const& inner) {
    layer const l;
    input_map const map = transform.fit(l.w, l.known);
    for (problem const* p : {static_cast<problem const*>(&groups), static_cast<problem const*>(&rows)}) {
        solution const found = transformed<T, Inner>{transform, inner}.solve(l.w, l.known, *p);
        solution const expected = solve_with(inner, map.of_weights(l.w), l.known.mapped(map), *p);
        EXPECT_EQ(found.map, input_map(map).then(expected.map)); // weak columns are stored last
        EXPECT_EQ(found.codes, expected.codes);
        EXPECT_EQ(found.scales, expected.scales);
        EXPECT_EQ(found.weak, expected.weak);
        EXPECT_EQ(found.report.loss, expected.report.loss);
        // Its inputs are mapped before the product, so that it is near what the layer computes.
        matrix const q = dequantize(pack(found));
        matrix const exact = l.x * l.w.transpose();
        EXPECT_LE((l.x * q.transpose() - exact).squaredNorm(), 0.2F * exact.squaredNorm());
    }
}

TEST(transformed, rounds_mapped_weights_knowing_mapped_inputs) {
    expect_inner_of_mapped(smooth<>{}, rtn{});
    expect_inner_of_mapped(smooth<>{}, gptq<>{});
    expect_inner_of_mapped(smooth<channel_size::root_mean_square>{0.3F}, gptq<>{});
    expect_inner_of_mapped(power_of_two{}, gptq<>{});
    expect_inner_of_mapped(hadamard<16>{}, rtn{});
    expect_inner_of_mapped(hadamard<16>{}, gptq<>{});
    expect_inner_of_mapped(hadamard<>{32}, owq<gptq<>>{.columns = 3});
    expect_inner_of_mapped(in_order{}, rtn{});
    expect_inner_of_mapped(shuffled{}, gptq<>{});
}

TEST(transformed, in_order_with_gptq_is_gptq_in_activation_order) {
    layer const l;
    solution const found = transformed<in_order, gptq<>>{}.solve(l.w, l.known, groups);
    solution const expected = gptq<>{.activation_order = true}.solve(l.w, l.known, groups);
    EXPECT_EQ(found.map, expected.map);
    EXPECT_TRUE(pack(found) == pack(expected));
    EXPECT_EQ(dequantize(pack(found)), dequantize(pack(expected)));
}

TEST(transformed, signs_and_order_change_no_error_of_symmetric_rows) {
    // Rounding to a grid without a zero point commutes with the sign of symmetric ranges, and rows with their order.
    layer const l;
    problem_of const p{fp_grid<2, 1>{}, per_channel{}, absmax_range{}};
    solution const plain = rtn{}.solve(l.w, {}, p);
    solution const mapped = transformed<shuffled>{}.solve(l.w, l.known, p);
    EXPECT_NE(mapped.codes, plain.codes);
    EXPECT_EQ(dequantize(pack(mapped)), dequantize(pack(plain)));
}

TEST(transformed, follows_the_map_of_the_solver_inside) {
    layer const l;
    gptq<> const inner{.activation_order = true};
    input_map map = hadamard<16>{}.fit(l.w, l.known);
    solution const expected = inner.solve(map.of_weights(l.w), l.known.mapped(map), groups);
    ASSERT_NE(expected.map.order(), nullptr);
    solution const found = transformed<hadamard<16>, gptq<>>{{}, inner}.solve(l.w, l.known, groups);
    EXPECT_EQ(found.map, map.then(expected.map));
    EXPECT_EQ(found.codes, expected.codes);
}

TEST(transformed, composes_with_others) {
    layer const l;
    transformed<smooth<>, transformed<hadamard<16>, transformed<in_order, gptq<>>>> const nested;
    solution const found = nested.solve(l.w, l.known, groups);
    input_map const first = smooth<>{}.fit(l.w, l.known);
    layer_inputs const once = l.known.mapped(first);
    input_map const second = hadamard<16>{}.fit(first.of_weights(l.w), once);
    layer_inputs const twice = once.mapped(second);
    matrix const w = second.of_weights(first.of_weights(l.w));
    input_map const third = in_order{}.fit(w, twice);
    solution const expected = gptq<>{}.solve(third.of_weights(w), twice.mapped(third), groups);
    input_map all = first;
    all.then(second).then(third);
    EXPECT_EQ(found.map, all);
    EXPECT_EQ(found.codes, expected.codes);
    // The larger inputs of the rotated layer are found from the kept ones.
    transformed<hadamard<16>, transformed<smooth<>>> const rotated_first;
    EXPECT_EQ(rotated_first.solve(l.w, l.known, groups).map.steps().size(), 2U);
    EXPECT_EQ(failure_message([&] { rotated_first.solve(l.w, test::inputs_of(l.x), groups); }),
              "smooth: needs the largest of each input, not only their Hessian");
    transformed<in_order, transformed<smooth<>>> const ordered_first; // which needs no kept ones
    EXPECT_EQ(ordered_first.solve(l.w, test::inputs_of(l.x), groups).map,
              ordered_first.solve(l.w, l.known, groups).map);
}

TEST(transformed, finds_the_unit_of_scales_of_mapped_weights) {
    layer l;
    l.x.col(5) *= 100;
    l.known = layer_inputs::of(l.x);
    auto const unit_for = [](matrix const& w) { return with_unit(e2m1{}, w, scale_kind::ue4m3); };
    problem_of const p{e2m1{}, per_group<16>{}, absmax_range{}, unit_for(l.w)};
    input_map const map = smooth<>{1}.fit(l.w, l.known);
    scale_format const expected = unit_for(map.of_weights(l.w));
    ASSERT_NE(expected.unit, unit_for(l.w).unit);
    solution const s = transformed<smooth<>>{.transform = {1}}.solve(l.w, l.known, p);
    EXPECT_EQ(s.scales.format, expected);
    EXPECT_EQ(
        s.codes,
        (rtn{}.solve(map.of_weights(l.w), {}, problem_of{e2m1{}, per_group<16>{}, absmax_range{}, expected}).codes));
    quantizer<e2m1, per_group<16>, transformed<smooth<>>> const nvfp4{.solver = {.transform = {1}},
                                                                      .format = scale_kind::ue4m3};
    EXPECT_EQ(nvfp4(l.w, l.known).packed().scales.format, expected);
    EXPECT_EQ(nvfp4(l.w, l.known).report().clamped_scales, 0);
}

TEST(transformed, refuses_scales_that_stay_where_they_are) {
    layer const l;
    solution const given = rtn{}.solve(l.w, {}, groups);
    with_scales const p(groups, given);
    for (auto const& message : {failure_message([&] { transformed<in_order>{}.solve(l.w, l.known, p); }),
                                failure_message([&] { transformed<hadamard<>, gptq<>>{}.solve(l.w, l.known, p); })}) {
        EXPECT_EQ(message, "transform: scales that depend on their place cannot follow weights that are mapped");
    }
}

TEST(transformed, names_what_is_wrong) {
    layer const l;
    matrix bad = l.w;
    bad(3, 7) = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(failure_message([&] { transformed<hadamard<16>>{}.solve(bad, l.known, groups); }),
              "weights: the weight at row 3, column 7 is not finite");
    EXPECT_NE(failure_message([&] { transformed<shuffled>{}.solve(l.w.leftCols(63), l.known, groups); }), "");
    EXPECT_TRUE(contains(failure_message([&] { transformed<smooth<>>{{2}}.solve(l.w, l.known, groups); }), "smooth"));
}

TEST(transformed, threads_do_not_change_a_bit) {
    layer const l;
    transformed<smooth<>, transformed<hadamard<16>, gptq<>>> const solver;
    packed_matrix const expected = pack(solver.solve(l.w, l.known, groups));
    for (index_t const count : {1, 2, 3}) {
        thread_team many(count);
        EXPECT_TRUE(pack(solver.solve(l.w, layer_inputs::of(l.x), groups, many)) == expected);
    }
}

/// How far the output of a layer is off, relative to its size, when weights and activations have 4 bits.
template <Solver S> double error_of_4_bits(S const& solver, matrix const& w, matrix const& x) {
    quantizer<int_grid<4>, per_channel, S, minmax_range, activations<int_grid<4>, per_token>> const q{.solver = solver};
    matrix const y = q(w, layer_inputs::of(x))(x);
    matrix const exact = x * w.transpose();
    return static_cast<double>((y - exact).squaredNorm() / exact.squaredNorm());
}

TEST(transformed, takes_outliers_from_activations_of_4_bits) {
    matrix const w = random_matrix(96, 256, 1);  // (out, in)
    matrix const x = random_matrix(200, 256, 2); // (token, in)
    matrix large_x = x;
    matrix small_w = w; // the same layer with a few inputs far larger than the rest
    for (index_t k = 32; k < 256; k += 64) {
        large_x.col(k) *= 8;
        small_w.col(k) /= 8;
    }
    double const without_outliers = error_of_4_bits(rtn{}, w, x);
    double const with_outliers = error_of_4_bits(rtn{}, small_w, large_x);
    double const smoothed = error_of_4_bits(transformed<smooth<>>{}, small_w, large_x);
    double const rotated = error_of_4_bits(transformed<hadamard<128>>{}, small_w, large_x);
    EXPECT_GT(with_outliers, 5 * without_outliers);
    EXPECT_LT(smoothed, 1.2 * without_outliers);
    EXPECT_LT(rotated, 2.5 * without_outliers);
}

} // namespace
