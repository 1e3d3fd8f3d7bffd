// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/transform/in_order.hpp"
#include "detent/transform/transform.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

static_assert(Transform<in_order>);

TEST(in_order, puts_the_largest_inputs_first) {
    matrix x = test::random_matrix(200, 6, 1);
    float const sizes[] = {1, 8, 0, 64, 8, 0.1F};
    for (index_t k = 0; k < 6; ++k) {
        x.col(k) *= sizes[k];
    }
    x.col(4) = x.col(1); // as large: stays behind
    std::vector<std::int32_t> const expected{3, 1, 4, 0, 5, 2};
    matrix const w = test::random_matrix(3, 6, 2);
    EXPECT_EQ(in_order{}.fit(w, layer_inputs::of(x)), input_map(permutation{expected}, 6));
    EXPECT_EQ(in_order{}.fit(w, layer_inputs(hessian::of(x))), input_map(permutation{expected}, 6)); // needs no more
    layer_inputs const known = layer_inputs::of(x);
    basic_vector<double> const diagonal = known.mapped(in_order{}.fit(w, known)).hessian().diagonal();
    for (index_t k = 1; k < 6; ++k) {
        EXPECT_LE(diagonal(k), diagonal(k - 1));
    }
}

TEST(in_order, refuses_inputs_that_are_not_finite) {
    matrix x = test::random_matrix(20, 6, 1);
    x(3, 2) = std::numeric_limits<float>::infinity();
    EXPECT_EQ(failure_message([&] { in_order{}.fit(matrix::Ones(3, 6), layer_inputs::of(x)); }),
              "hessian: input 2 was not finite");
}

} // namespace
