// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>

#include <gtest/gtest.h>

#include "detent/nn/triangular.hpp"

namespace detent {
namespace {

/// A well-conditioned upper triangular matrix, with numbers below its diagonal that nobody may read.
template <class T> basic_matrix<T> upper_triangular(index_t n) {
    basic_matrix<T> r = basic_matrix<T>::Random(n, n) / static_cast<T>(n);
    for (index_t i = 0; i < n; ++i) {
        r(i, i) = static_cast<T>(1 + 0.01 * static_cast<double>(i % 50));
        for (index_t j = 0; j < i; ++j) {
            r(i, j) = std::numeric_limits<T>::quiet_NaN();
        }
    }
    return r;
}

/// Its entries as doubles, with zeros below the diagonal.
template <class T> basic_matrix<double> as_double(basic_matrix<T> const& r) {
    basic_matrix<double> wide = basic_matrix<double>::Zero(r.rows(), r.cols());
    for (index_t i = 0; i < r.rows(); ++i) {
        for (index_t j = i; j < r.cols(); ++j) {
            wide(i, j) = static_cast<double>(r(i, j));
        }
    }
    return wide;
}

template <class T> class triangular : public testing::Test {
protected:
    static constexpr double most = 200.0 * static_cast<double>(std::numeric_limits<T>::epsilon());

    static double distance(basic_matrix<double> const& a, basic_matrix<double> const& b) {
        return a.size() > 0 ? (a - b).cwiseAbs().maxCoeff() : 0;
    }
};
using scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(triangular, scalars);

TYPED_TEST(triangular, factor_times_its_transpose_is_the_matrix) {
    for (index_t const n : {0, 1, 2, 7, 33, 128}) {
        basic_matrix<double> const r = as_double(upper_triangular<TypeParam>(n));
        basic_matrix<double> const a = r * r.transpose();
        basic_matrix<TypeParam> wide = basic_matrix<TypeParam>::Constant(n, n + 3, 7); // rows farther apart
        for (index_t i = 0; i < n; ++i) {
            for (index_t j = 0; j < n; ++j) {
                wide(i, j) = j < i ? std::numeric_limits<TypeParam>::quiet_NaN() : static_cast<TypeParam>(a(i, j));
            }
        }
        ASSERT_TRUE(nn::factor_upper(n, wide.data(), n + 3)) << n;
        EXPECT_LE(this->distance(as_double(basic_matrix<TypeParam>(wide.leftCols(n))), r), this->most) << n;
        EXPECT_TRUE((wide.rightCols(3).array() == 7).all());
    }
}

TYPED_TEST(triangular, factor_refuses_what_is_not_positive_definite) {
    using limits = std::numeric_limits<TypeParam>;
    for (TypeParam const bad : {TypeParam{0}, TypeParam{-1}, limits::infinity(), limits::quiet_NaN()}) {
        for (index_t const at : {0, 3, 8}) {
            basic_matrix<TypeParam> a = basic_matrix<TypeParam>::Identity(9, 9);
            a(at, at) = bad;
            EXPECT_FALSE(nn::factor_upper(index_t{9}, a.data(), index_t{9})) << bad << " at " << at;
        }
    }
    basic_matrix<TypeParam> a(2, 2); // a positive diagonal is not enough
    a << 1, 2, 2, 1;
    EXPECT_FALSE(nn::factor_upper(index_t{2}, a.data(), index_t{2}));
    a << 1, limits::quiet_NaN(), 0, 1;
    EXPECT_FALSE(nn::factor_upper(index_t{2}, a.data(), index_t{2}));
}

TYPED_TEST(triangular, inverse_times_the_matrix_is_the_identity) {
    for (index_t const n : {0, 1, 2, 9, 64, 130}) {
        basic_matrix<TypeParam> const r = upper_triangular<TypeParam>(n);
        basic_matrix<TypeParam> inverse(n, n + 2);
        nn::invert_upper(n, r.data(), n, inverse.data(), n + 2);
        basic_matrix<double> const product = inverse.leftCols(n).template cast<double>() * as_double(r);
        EXPECT_LE(this->distance(product, basic_matrix<double>::Identity(n, n)), this->most) << n;
    }
}

TYPED_TEST(triangular, division_undoes_products) {
    for (index_t const n : {0, 1, 5, 64, 65, 128, 300}) {
        basic_matrix<TypeParam> const r = upper_triangular<TypeParam>(n);
        basic_matrix<TypeParam> const before = basic_matrix<TypeParam>::Random(21, n + 5);
        basic_matrix<TypeParam> by_r = before;
        basic_matrix<TypeParam> by_transposed = before;
        nn::divide_by_upper(21, n, by_r.data(), n + 5, r.data(), n);
        nn::divide_by_transposed_upper(21, n, by_transposed.data(), n + 5, r.data(), n);
        basic_matrix<double> const wide = as_double(r);
        basic_matrix<double> const expected = before.leftCols(n).template cast<double>();
        auto const quotient = [n](basic_matrix<TypeParam> const& x) { return x.leftCols(n).template cast<double>(); };
        EXPECT_LE(this->distance(quotient(by_r) * wide, expected), this->most) << n;
        EXPECT_LE(this->distance(quotient(by_transposed) * wide.transpose(), expected), this->most) << n;
        EXPECT_EQ(by_r.rightCols(5), before.rightCols(5));
        EXPECT_EQ(by_transposed.rightCols(5), before.rightCols(5));
    }
}

#if !defined(EIGEN_USE_BLAS)
TYPED_TEST(triangular, quotients_of_a_row_do_not_depend_on_the_others) {
    constexpr index_t n = 200;
    basic_matrix<TypeParam> const r = upper_triangular<TypeParam>(n);
    basic_matrix<TypeParam> const x = basic_matrix<TypeParam>::Random(13, n);
    auto const check = [&](auto const& divide) {
        basic_matrix<TypeParam> together = x;
        divide(index_t{13}, n, together.data(), n, r.data(), n);
        for (index_t row = 0; row < 13; ++row) {
            basic_matrix<TypeParam> alone = x.row(row);
            divide(index_t{1}, n, alone.data(), n, r.data(), n);
            EXPECT_EQ(alone, together.row(row)) << row;
        }
    };
    check([](auto... arguments) { nn::divide_by_upper(arguments...); });
    check([](auto... arguments) { nn::divide_by_transposed_upper(arguments...); });
}
#endif

} // namespace
} // namespace detent
