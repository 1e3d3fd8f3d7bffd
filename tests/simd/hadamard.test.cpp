// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/hadamard.hpp"

namespace {

using namespace detent;

template <class T> std::vector<T> random_numbers(index_t n, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<T> normal;
    std::vector<T> x(static_cast<std::size_t>(n));
    for (T& v : x) {
        v = normal(random);
    }
    return x;
}

template <class T> std::vector<T> transformed(std::vector<T> x, index_t width) {
    simd::hadamard(x.data(), std::ssize(x), width);
    return x;
}

/// The matrix of the definition times each block, in double.
template <class T> std::vector<double> by_definition(std::vector<T> const& x, index_t width) {
    std::vector<double> y(x.size());
    for (std::size_t k = 0; k < x.size(); ++k) {
        auto const n = static_cast<std::size_t>(width);
        std::size_t const first = k / n * n;
        for (std::size_t j = 0; j < n; ++j) {
            double const sign = std::popcount((k - first) & j) % 2 == 0 ? 1 : -1;
            y[k] += sign * static_cast<double>(x[first + j]) / std::sqrt(static_cast<double>(width));
        }
    }
    return y;
}

/// The same additions one by one, in the order that is promised: nearest neighbours first.
template <class T> std::vector<T> one_by_one(std::vector<T> x, index_t width) {
    auto const n = static_cast<std::size_t>(width);
    for (std::size_t step = 1; step < n; step *= 2) {
        for (std::size_t k = 0; k < x.size(); ++k) {
            if ((k & step) == 0) {
                T const a = x[k];
                T const b = x[k + step];
                x[k] = a + b;
                x[k + step] = a - b;
            }
        }
    }
    for (T& v : x) {
        v *= T(1) / std::sqrt(static_cast<T>(width));
    }
    return x;
}

template <class T> class hadamard_of : public testing::Test {};
using scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(hadamard_of, scalars);

TYPED_TEST(hadamard_of, is_the_product_with_the_matrix_of_the_definition) {
    double const most = 4 * static_cast<double>(std::numeric_limits<TypeParam>::epsilon());
    for (index_t width = 1; width <= 512; width *= 2) {
        for (index_t const blocks : {0, 1, 3}) {
            auto const x = random_numbers<TypeParam>(blocks * width, static_cast<unsigned>(width));
            auto const y = transformed(x, width);
            auto const expected = by_definition(x, width);
            double const size = std::sqrt(static_cast<double>(width)); // of a block
            for (std::size_t k = 0; k < x.size(); ++k) {
                ASSERT_NEAR(static_cast<double>(y[k]), expected[k], most * size) << width << ' ' << k;
            }
        }
    }
}

TYPED_TEST(hadamard_of, is_its_own_inverse) {
    auto const most = 16 * std::numeric_limits<TypeParam>::epsilon();
    for (index_t width = 1; width <= 512; width *= 2) {
        auto const x = random_numbers<TypeParam>(3 * width, 5);
        auto const again = transformed(transformed(x, width), width);
        for (std::size_t k = 0; k < x.size(); ++k) {
            ASSERT_NEAR(again[k], x[k], 4 * most) << width << ' ' << k;
        }
    }
}

// Every sum has two terms that do not depend on the instruction set, so the bits are those of a scalar program.
TYPED_TEST(hadamard_of, has_the_bits_of_additions_one_by_one) {
    for (index_t width = 1; width <= 512; width *= 2) {
        auto const x = random_numbers<TypeParam>(3 * width, 6);
        EXPECT_EQ(transformed(x, width), one_by_one(x, width)) << width;
    }
}

TYPED_TEST(hadamard_of, takes_numbers_at_any_address_and_writes_no_others) {
    for (index_t const width : {1, 2, 4, 8, 64}) {
        for (std::ptrdiff_t const first : {1, 2, 3}) {
            auto const x = random_numbers<TypeParam>(2 * width + 8, 7);
            auto y = x;
            simd::hadamard(y.data() + first, 2 * width, width);
            std::vector<TypeParam> expected(x.begin() + first, x.begin() + first + 2 * width);
            expected = one_by_one(expected, width);
            expected.insert(expected.begin(), x.begin(), x.begin() + first);
            expected.insert(expected.end(), x.begin() + first + 2 * width, x.end());
            EXPECT_EQ(y, expected) << width << ' ' << first;
        }
    }
}

TEST(is_power_of_two, knows_them) {
    for (index_t n = -9; n <= 1030; ++n) {
        bool found = false;
        for (index_t power = 1; power <= 1024; power *= 2) {
            found = found || n == power;
        }
        EXPECT_EQ(simd::is_power_of_two(n), found) << n;
    }
    EXPECT_TRUE(simd::is_power_of_two(index_t{1} << 62));
    EXPECT_FALSE(simd::is_power_of_two(std::numeric_limits<index_t>::min()));
}

} // namespace
