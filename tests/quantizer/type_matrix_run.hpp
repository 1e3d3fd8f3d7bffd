// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/matrix/dequantize.hpp"
#include "quantizer/type_matrix_layer.hpp"

// What every cell of the sample has to do.

namespace detent::test {

/// A typed test of one cell.
template <class Cell> class type_matrix : public testing::Test {};
TYPED_TEST_SUITE_P(type_matrix);

TYPED_TEST_P(type_matrix, quantizes_sanely) {
    using quantizer_type = typename TypeParam::type;
    matrix_layer const& l = matrix_layer::shared();
    auto const q = make_quantizer<quantizer_type>();
    auto const result = q(l.w, l.known);
    matrix const numbers = dequantize(result.packed());
    ASSERT_TRUE(numbers.allFinite());
    double const error = std::sqrt(l.known.output_error(l.w, numbers) / l.known.hessian().quadratic(l.w));
    EXPECT_LT(error, sane_error(decltype(q.grid)::bits));
    EXPECT_GT(error, 0);
    constexpr bool has_weak = wraps<wrapping::weak_columns, decltype(q.solver)>;
    EXPECT_EQ(result.packed().weak.count(), has_weak ? 2 : 0);
    EXPECT_EQ(result.report().fallback, "");

    matrix y(l.x.rows(), l.w.rows()); // (token, out)
    multiply(result, l.x, y);
    matrix const expected = l.x * numbers.transpose();
    EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 1e-4 * expected.cwiseAbs().maxCoeff());

    thread_team two(2);
    EXPECT_EQ(q(l.w, l.known, two).packed(), result.packed());
}
REGISTER_TYPED_TEST_SUITE_P(type_matrix, quantizes_sanely);

/// The same as a list of Google Test.
template <class List> struct as_types;
template <class... Ts> struct as_types<type_list<Ts...>> { using type = testing::Types<Ts...>; };

} // namespace detent::test
