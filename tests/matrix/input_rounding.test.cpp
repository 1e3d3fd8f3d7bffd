// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/input_rounding.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

TEST(input_rounding, fit_holds_all_inputs_of_each_group) {
    matrix const x = test::random_matrix(9, 40, 1);
    input_rounding const r{.grids = {any_grid(int_grid<8>{})}, .fixed = true, .width = 16};
    activation_quantizer const q = r.fit(x);
    ASSERT_EQ(q.fixed().size(), 3U);
    for (index_t g = 0; g < 3; ++g) {
        auto const group = x.middleCols(16 * g, std::min<index_t>(16, 40 - 16 * g));
        float const width = std::max(0.0F, group.maxCoeff()) - std::min(0.0F, group.minCoeff());
        EXPECT_EQ(q.fixed()[static_cast<std::size_t>(g)].scale, width / 255);
    }
    EXPECT_EQ(q.how().width, 16);
}

TEST(input_rounding, dynamic_scales_may_have_the_unit_of_inputs_that_were_seen) {
    matrix const x = test::random_matrix(9, 40, 1);
    input_rounding const r{.grids = {any_grid(e2m1{})}, .width = 16, .format = scale_kind::ue4m3};
    activation_quantizer const q = r.dynamic(x);
    ASSERT_TRUE(q.how().unit.has_value());
    EXPECT_EQ(*q.how().unit, x.cwiseAbs().maxCoeff() / (6 * 448));
    EXPECT_FALSE(r.dynamic().how().unit.has_value());
    input_rounding const floats{.grids = {any_grid(e2m1{})}, .width = 16};
    EXPECT_EQ(floats.dynamic(x), floats.dynamic());
}

TEST(input_rounding, inputs_must_be_there_and_finite) {
    input_rounding const r{.grids = {any_grid(e2m1{})}};
    matrix x = test::random_matrix(9, 40, 1);
    x(3, 4) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(failure_message([&] { r.fit(x); }), "inputs: are not finite");
    EXPECT_EQ(failure_message([&] { r.dynamic(x); }), "inputs: are not finite");
    EXPECT_EQ(failure_message([&] { r.fit(matrix(0, 40)); }), "inputs: are missing");
}

} // namespace
