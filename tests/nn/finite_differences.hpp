// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "detent/core/eigen.hpp"
#include "random_matrix.hpp"

namespace detent::test {

using matrix64 = basic_matrix<double>;
using vector64 = basic_vector<double>;

inline matrix64 random_matrix64(index_t rows, index_t cols, unsigned seed, float scale = 1.0F) {
    return random_matrix(rows, cols, seed, scale).cast<double>();
}

inline vector64 random_vector64(index_t size, unsigned seed) { return random_matrix64(size, 1, seed); }

/// The loss whose gradient with respect to `y` is `g`.
inline double weighted_sum(matrix64 const& y, matrix64 const& g) { return y.cwiseProduct(g).sum(); }

/// Compares `gradient` with finite differences of `loss()`, a function of `x`, for every `every`-th entry of `x`, which
/// it changes and puts back. The differences are central and of fourth order, so with step h they err by about h^4.
template <class X, class Loss>
void expect_gradient(X const& gradient, X& x, Loss const& loss, index_t every = 1, double tolerance = 1e-6,
                     double h = 1e-3) {
    ASSERT_EQ(shape_of(gradient), shape_of(x));
    double const highest = gradient.cwiseAbs().maxCoeff();
    ASSERT_GT(highest, 0);
    for (index_t i = 0; i < x.size(); i += every) {
        double const before = x.data()[i];
        auto const at = [&](double change) {
            x.data()[i] = before + change;
            return loss();
        };
        double const slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
        x.data()[i] = before;
        double const found = gradient.data()[i];
        EXPECT_NEAR(found, slope, tolerance * std::max(std::abs(found), 1e-3 * highest)) << "entry " << i;
    }
}

/// Compares a float gradient with the double one, relative to its largest entry.
inline void expect_near(matrix const& found, matrix64 const& expected, double tolerance) {
    ASSERT_EQ(shape_of(found), shape_of(expected));
    EXPECT_LE((found.cast<double>() - expected).cwiseAbs().maxCoeff(), tolerance * expected.cwiseAbs().maxCoeff());
}

} // namespace detent::test
