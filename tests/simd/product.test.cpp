// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/product.hpp"

namespace {

using namespace detent;

template <class T> std::vector<T> uniform_numbers(index_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    std::vector<T> numbers(static_cast<std::size_t>(n));
    std::ranges::generate(numbers, [&] { return static_cast<T>(uniform(generator)); });
    return numbers;
}

struct product_shape {
    index_t m;
    index_t n;
    index_t k;
};

std::vector<product_shape> shapes() {
    return {{1, 1, 1},    {1, 7, 3},     {5, 1, 9},   {6, 16, 2},    {12, 32, 256},  {13, 33, 257},
            {7, 300, 31}, {200, 40, 17}, {70, 65, 0}, {3, 1100, 12}, {205, 130, 600}};
}

template <class Types> class products_of : public testing::Test {};
template <class A, class B> struct types {
    using term = A;
    using sum = B;
};
using all_types = testing::Types<types<float, float>, types<double, double>, types<float, double>>;
TYPED_TEST_SUITE(products_of, all_types, );

TYPED_TEST(products_of, are_sums_of_products_for_every_layout) {
    using T = typename TypeParam::term;
    using Sum = typename TypeParam::sum;
    using multiply = simd::products<T, Sum>;
    for (auto const [m, n, k] : shapes()) {
        auto const a = uniform_numbers<T>(m * k, 1);
        auto const b = uniform_numbers<T>(k * n, 2);
        for (bool const a_transposed : {false, true}) {
            for (bool const b_transposed : {false, true}) {
                simd::strided<T> const left{a.data(), a_transposed ? 1 : k, a_transposed ? m : 1};
                simd::strided<T> const right{b.data(), b_transposed ? 1 : n, b_transposed ? k : 1};
                index_t const stride = n + 3;
                auto const before = uniform_numbers<Sum>(m * stride, 3);
                auto c = before;
                multiply::add(m, n, k, T{-2}, left, right, c.data(), stride);
                for (index_t i = 0; i < m; ++i) {
                    for (index_t j = 0; j < stride; ++j) {
                        auto const at = static_cast<std::size_t>(i * stride + j);
                        double expected = static_cast<double>(before[at]);
                        double size = std::abs(expected);
                        for (index_t p = 0; p < k && j < n; ++p) {
                            double const term =
                                -2.0 * static_cast<double>(*left.at(i, p)) * static_cast<double>(*right.at(p, j));
                            expected += term;
                            size += std::abs(term);
                        }
                        double const rounding = static_cast<double>(std::min<index_t>(k, 256) + 4) *
                                                static_cast<double>(std::numeric_limits<T>::epsilon());
                        ASSERT_NEAR(static_cast<double>(c[at]), expected, j < n ? rounding * size : 0.0)
                            << m << " x " << n << " x " << k << " at " << i << ", " << j;
                    }
                }
            }
        }
    }
}

TYPED_TEST(products_of, have_the_same_bits_however_they_are_cut) {
    using T = typename TypeParam::term;
    using Sum = typename TypeParam::sum;
    using multiply = simd::products<T, Sum>;
    constexpr index_t m = 230;
    constexpr index_t n = 150;
    constexpr index_t k = 700;
    auto const a = uniform_numbers<T>(m * k, 1);
    auto const b = uniform_numbers<T>(k * n, 2);
    simd::strided<T> const left{a.data(), k};
    simd::strided<T> const right{b.data(), n};
    auto const before = uniform_numbers<Sum>(m * n, 3);
    auto whole = before;
    multiply::add(m, n, k, T{1}, left, right, whole.data(), n);
    for (index_t const piece : {1, 5, 12, 16, 37, 100}) {
        auto c = before;
        for (index_t i = 0; i < m; i += piece) {
            for (index_t j = 0; j < n; j += piece + 3) {
                multiply::add(std::min(piece, m - i), std::min(piece + 3, n - j), k, T{1}, left.block(i, 0),
                              right.block(0, j), c.data() + i * n + j, n);
            }
        }
        EXPECT_EQ(c, whole) << piece;
    }
}

TYPED_TEST(products_of, have_an_upper_part) {
    using T = typename TypeParam::term;
    using Sum = typename TypeParam::sum;
    using multiply = simd::products<T, Sum>;
    for (index_t const n : {1, 13, 200, 1300}) {
        auto const a = uniform_numbers<T>(20 * n, 1);
        simd::strided<T> const x{a.data(), n};
        std::vector<Sum> whole(static_cast<std::size_t>(n * n));
        auto upper = whole;
        multiply::add(n, n, 20, T{1}, x.transpose(), x, whole.data(), n);
        multiply::add(n, n, 20, T{1}, x.transpose(), x, upper.data(), n, simd::part::upper);
        index_t skipped = 0;
        for (index_t i = 0; i < n; ++i) {
            for (index_t j = 0; j < n; ++j) {
                auto const at = static_cast<std::size_t>(i * n + j);
                if (i <= j) {
                    ASSERT_EQ(upper[at], whole[at]) << i << ", " << j;
                } else {
                    skipped += upper[at] == 0 ? 1 : 0;
                }
            }
        }
        EXPECT_GE(skipped, n * (n - 1) / 2 - 70 * n);
    }
}

} // namespace
