// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/evidence/layer_inputs.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

TEST(layer_inputs, sums_products_of_the_difference_and_the_input) {
    for (index_t const in : {1, 23, 150}) {
        matrix const floats = test::random_matrix(350, in, 1);
        matrix const x = 0.9F * floats + 0.1F * test::random_matrix(350, in, 2);
        layer_inputs known(in);
        EXPECT_FALSE(known.has_difference());
        known.add(x.topRows(300), floats.topRows(300));
        known.add(x.bottomRows(50), floats.bottomRows(50));
        EXPECT_TRUE(known.has_difference());
        Eigen::MatrixXd const expected = 2.0 / 350 * (floats - x).cast<double>().transpose() * x.cast<double>();
        EXPECT_LE((known.difference() - expected).cwiseAbs().maxCoeff(), 1e-5 * expected.cwiseAbs().maxCoeff());
        EXPECT_EQ(known.hessian().tokens(), 350);
        EXPECT_EQ(known.hessian().sum(), [&] {
            hessian h(in);
            h.add(x.topRows(300));
            h.add(x.bottomRows(50));
            return h.sum();
        }());
    }
}

TEST(layer_inputs, measures_the_distance_to_the_float_output) {
    matrix const floats = test::random_matrix(200, 30, 1);
    matrix const x = 0.9F * floats + 0.1F * test::random_matrix(200, 30, 2);
    layer_inputs known(30);
    known.add(x, floats);
    matrix const w = test::random_matrix(150, 30, 3);
    matrix const q = w + 0.1F * test::random_matrix(150, 30, 4);
    double const expected =
        (floats * w.transpose() - x * q.transpose()).cast<double>().squaredNorm() / static_cast<double>(x.rows());
    EXPECT_NEAR(known.output_error(w, q), expected, 1e-5 * expected);
}

TEST(layer_inputs, refuses_streams_of_different_shapes) {
    layer_inputs known(5);
    EXPECT_THROW(known.add(matrix::Zero(3, 5), matrix::Zero(4, 5)), error);
    EXPECT_THROW(known.add(matrix::Zero(3, 4), matrix::Zero(3, 4)), error);
    EXPECT_THROW(known.add(matrix::Zero(3, 4)), error);
    known.add(matrix::Zero(3, 5));
    EXPECT_THROW(known.add(matrix::Zero(3, 5), matrix::Zero(3, 5)), error); // too late
    layer_inputs both(5);
    both.add(matrix::Zero(3, 5), matrix::Zero(3, 5));
    EXPECT_THROW(both.add(matrix::Zero(3, 5)), error);
}

TEST(layer_inputs, factors_for_what_was_asked_and_seen_last) {
    layer_inputs known(40);
    known.add(test::random_matrix(100, 40, 1));
    hessian_factor const& f = known.factor({0.01, false});
    EXPECT_EQ(f.r, factor(known.hessian(), {0.01, false}).r);
    double const* const r = f.r.data();
    EXPECT_EQ(known.factor({0.01, false}).r.data(), r); // not computed again
    EXPECT_EQ(known.factor({0.1, false}).r, factor(known.hessian(), {0.1, false}).r);
    EXPECT_EQ(known.factor({0.1, true}).r, factor(known.hessian(), {0.1, true}).r);
    known.add(test::random_matrix(100, 40, 2));
    EXPECT_EQ(known.factor({0.1, true}).r, factor(known.hessian(), {0.1, true}).r);
}

} // namespace
