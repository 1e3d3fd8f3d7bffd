// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/solution.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_solution.hpp"

namespace {

using namespace detent;

TEST(solution, finds_the_scale_of_a_weight) {
    solution const s = test::random_solution(ternary{}, {7, 11}, {2, 4}, 1);
    ASSERT_EQ(s.scales.tiles, (extents{4, 3}));
    EXPECT_EQ(s.scale_at(0, 0), s.scales.at(0, 0));
    EXPECT_EQ(s.scale_at(1, 3), s.scales.at(0, 0));
    EXPECT_EQ(s.scale_at(2, 4), s.scales.at(1, 1));
    EXPECT_EQ(s.scale_at(6, 10), s.scales.at(3, 2));
}

TEST(pack, keeps_all_a_product_needs) {
    solution s = test::random_solution(ternary{}, {7, 11}, {2, 4}, 1);
    s.map = input_map(permutation{test::random_order(11, 1)}, 11);
    packed_matrix const w = pack(s);
    EXPECT_EQ(w.bits, 2);
    EXPECT_EQ(w.extent, s.shape);
    EXPECT_EQ(w.tile, s.tile);
    EXPECT_EQ(w.scales, s.scales);
    EXPECT_EQ(w.map, s.map);
    ASSERT_EQ(w.table.size(), 4U);
    EXPECT_EQ(w.table[0], -1);
    EXPECT_TRUE(std::isnan(w.table[3]));
}

TEST(pack, complains_of_numbers_that_are_not_finite) {
    float const max = std::numeric_limits<float>::max();
    solution s = test::random_solution(int_grid<4>{}, {7, 11}, {2, 4}, 1);
    s.scales.format = scale_format(scale_kind::f32);
    std::fill(s.codes.begin(), s.codes.end(), code{9});
    s.scales.set(2, 1, {max / 2, 8});
    EXPECT_EQ(failure_message([&] { pack(s); }), ""); // -8 times that would not fit, but no weight has that code
    s.code_at(5, 7) = 0;
    EXPECT_EQ(failure_message([&] { pack(s); }),
              "weights: the weight at row 5, column 7 is rounded to a number beyond all floats");
    s.scales.set(2, 1, {max / 16, 8});
    EXPECT_EQ(failure_message([&] { pack(s); }), "");
    for (float const scale : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
        s.scales.set(3, 2, {scale, 8});
        EXPECT_EQ(failure_message([&] { pack(s); }), "scales: are not finite");
        s.scales.set(3, 2, {1, scale});
        EXPECT_EQ(failure_message([&] { pack(s); }), "scales: are not finite");
    }
}

/// Ones and a solution for them whose scales all fit.
std::pair<matrix, solution> ones(extents tile, scale_format format = {}) {
    solution s = test::random_solution(ternary{}, {7, 11}, tile, 1);
    s.scales.format = format;
    return {matrix::Ones(7, 11), s};
}

TEST(clamped_scales, are_those_at_the_ends_of_their_format) {
    scale_format const nv{scale_kind::ue4m3, 0.3F};
    for (scale_format const format : {scale_format(scale_kind::f16), scale_format(scale_kind::bf16),
                                      scale_format(scale_kind::f32), scale_format(scale_kind::e8m0), nv}) {
        auto [w, s] = ones({2, 4}, format);
        EXPECT_EQ(clamped_scales(w, s), 0);
        s.scales.set(1, 2, {store(format, 1e-45F), 0});
        EXPECT_EQ(clamped_scales(w, s), 1);
        s.scales.set(3, 0, {limits_of(format).smallest, 0});
        EXPECT_EQ(clamped_scales(w, s), 2);
        s.scales.set(0, 1, {store(format, std::numeric_limits<float>::infinity()), 0});
        EXPECT_EQ(clamped_scales(w, s), format == nv ? 2 : 3); // the unit makes the largest scale fit
        s.scales.set(1, 2, {2 * limits_of(format).smallest, 0});
        EXPECT_EQ(clamped_scales(w, s), format == nv ? 1 : 2);
    }
}

TEST(clamped_scales, do_not_count_where_all_weights_are_zero) {
    auto [w, s] = ones({2, 4});
    s.map = input_map(permutation{test::random_order(11, 1)}, 11);
    s.scales.set(3, 2, {0x1p-24F, 0}); // row 6, stored columns 8 to 10
    EXPECT_EQ(clamped_scales(w, s), 1);
    for (index_t k = 8; k < 11; ++k) {
        EXPECT_EQ(clamped_scales(w, s), 1);
        w(6, (*s.map.order())[static_cast<std::size_t>(k)]) = 0;
    }
    EXPECT_EQ(clamped_scales(w, s), 0);
    w.row(6).setOnes();
    s.weak = weak_columns({8, 9}, 7, float_format::f16);
    EXPECT_EQ(clamped_scales(w, s), 1);
    s.weak = weak_columns({8, 9, 10}, 7, float_format::f16);
    EXPECT_EQ(clamped_scales(w, s), 0);
}

TEST(solution, parts_of_other_sizes_are_named) {
    solution const right = test::random_solution(int_grid<4>{}, {5, 7}, {1, 4}, 1);
    auto const message = [&](auto const& harm) {
        solution s = right;
        harm(s);
        return failure_message([&] { pack(s); });
    };
    EXPECT_EQ(message([](solution&) {}), "");
    EXPECT_EQ(message([](solution& s) { s.codes.push_back(0); }), "solution: has not one code for each weight");
    EXPECT_EQ(message([](solution& s) { s.codes.back() = 16; }), "solution: has a code without a number");
    EXPECT_EQ(message([](solution& s) { s.table.pop_back(); }), "solution: has not 2^bits numbers");
    EXPECT_EQ(message([](solution& s) { s.table.clear(); }), "solution: has not 2^bits numbers");
    EXPECT_EQ(message([](solution& s) { s.tile.rows = 0; }), "solution: has tiles without weights");
    EXPECT_EQ(message([](solution& s) { s.tile.cols = 3; }), "solution: has not one scale for each tile");
    EXPECT_EQ(message([](solution& s) { s.tile_of = {0, 0, 0, 0, 1, 1, 1}; }),
              "solution: is for some of the columns of a matrix");
    EXPECT_EQ(failure_message([&] { clamped_scales(matrix::Zero(5, 8), right); }),
              "solution: has another shape than the weights");
}

} // namespace
