// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/transform/fake_quantizer.hpp"
#include "grid/own_grid.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

template <class Scalar> void expect_zeros_kept(any_grid const& grid, double most) {
    basic_matrix<Scalar> x = test::random_matrix(4, 24, 1).cast<Scalar>();
    x.row(1).setZero();
    x.block(3, 8, 1, 8).setZero();
    auto const clip = learned_clip<Scalar>::of(4, 3);
    for (auto const format : {float_format::f16, float_format::f32}) {
        fake_quantizer<Scalar> const rounds(grid, 8, format);
        typename fake_quantizer<Scalar>::tiles how;
        basic_matrix<Scalar> const y = rounds.forward(x, &clip, how);
        EXPECT_LE(y.row(1).cwiseAbs().maxCoeff(), most);
        EXPECT_LE(y.block(3, 8, 1, 8).cwiseAbs().maxCoeff(), most);
        EXPECT_GT(y.row(0).norm(), 1);
        auto gradient_of_clip = learned_clip<Scalar>::of(4, 3, 0);
        basic_matrix<Scalar> const g =
            rounds.backward(x, y, basic_matrix<Scalar>::Ones(4, 24), how, &clip, &gradient_of_clip);
        EXPECT_TRUE(g.allFinite());
        EXPECT_EQ(g.row(1), g.row(1).Ones(24)); // no scale there depends on the numbers
        EXPECT_TRUE(gradient_of_clip.low.allFinite());
        EXPECT_EQ(gradient_of_clip.low.row(1).norm(), 0);
    }
}

TEST(fake_quantizer, zeros_are_as_near_to_0_as_the_grid_can_say) {
    for (any_grid const& grid : {any_grid(int_grid<1, zero::none>{}), any_grid(test::powers_of_two{})}) {
        expect_zeros_kept<float>(grid, 0x1p-24);
        expect_zeros_kept<double>(grid, 0x1p-24);
    }
    for (any_grid const& grid : {any_grid(int_grid<3>{}), any_grid(e2m1{}), any_grid(test::half_up{})}) {
        expect_zeros_kept<float>(grid, 0);
        expect_zeros_kept<double>(grid, 0);
    }
}

} // namespace
