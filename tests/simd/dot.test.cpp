// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/dot.hpp"

namespace {

using namespace detent;

template <class T> class dot : public testing::Test {};
using scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(dot, scalars);

template <class T> std::vector<T> wave(index_t n, T step) {
    std::vector<T> x;
    for (index_t i = 0; i < n; ++i) {
        x.push_back(std::sin(step * static_cast<T>(i + 1)));
    }
    return x;
}

TYPED_TEST(dot, is_the_sum_of_products_for_every_length) {
    for (index_t n = 0; n <= 200; ++n) {
        auto const a = wave<TypeParam>(n, TypeParam(0.7));
        auto const b = wave<TypeParam>(n, TypeParam(0.3));
        double wanted = 0;
        for (std::size_t i = 0; i < a.size(); ++i) {
            wanted += static_cast<double>(a[i]) * static_cast<double>(b[i]);
        }
        double const tolerance = std::is_same_v<TypeParam, float> ? 1e-5 : 1e-13;
        EXPECT_NEAR(static_cast<double>(simd::dot(a.data(), b.data(), n)), wanted, tolerance) << n;
    }
}

TYPED_TEST(dot, weighted_squares_are_summed_for_every_length) {
    for (index_t n = 0; n <= 100; ++n) {
        auto const x = wave<TypeParam>(n, TypeParam(0.7));
        auto const weights = wave<TypeParam>(n, TypeParam(0.3));
        double wanted = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            wanted += static_cast<double>(x[i]) * static_cast<double>(x[i]) * static_cast<double>(weights[i]);
        }
        double const tolerance = std::is_same_v<TypeParam, float> ? 1e-5 : 1e-13;
        EXPECT_NEAR(static_cast<double>(simd::weighted_squares(x.data(), weights.data(), n)), wanted, tolerance) << n;
    }
}

TYPED_TEST(dot, multiples_are_added_for_every_length) {
    for (index_t n = 0; n <= 70; ++n) {
        auto const x = wave<TypeParam>(n, TypeParam(0.7));
        auto y = wave<TypeParam>(n + 1, TypeParam(0.3)); // one more, which must stay
        auto const before = y;
        simd::add_multiple(TypeParam(-1.5), x.data(), y.data(), n);
        for (std::size_t i = 0; i < x.size(); ++i) {
            EXPECT_NEAR(y[i], before[i] - TypeParam(1.5) * x[i], 1e-6) << n;
        }
        EXPECT_EQ(y.back(), before.back());
    }
}

} // namespace
