// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/rounding_error.hpp"

namespace {

using namespace detent;

template <class Set> void expect_the_error_of_round(Set const& set, float zero) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 3);
    for (index_t n = 0; n <= 70; ++n) {
        auto const size = static_cast<std::size_t>(n);
        std::vector<float> weights(size), numbers(size);
        std::vector<code> codes(size);
        std::ranges::generate(weights, [&] { return normal(random); });
        simd::round(set, n, weights.data(), 0.7F, zero, codes.data(), numbers.data());
        for (float const exponent : {1.0F, 2.0F, 2.4F}) {
            double expected = 0;
            for (std::size_t i = 0; i < size; ++i) {
                expected += std::pow(std::abs(double{weights[i]} - numbers[i]), exponent);
            }
            float const found = simd::rounding_error(set, n, weights.data(), 0.7F, zero, exponent);
            EXPECT_NEAR(found, expected, 2e-5 * expected) << n << ", " << exponent;
        }
    }
}

TEST(rounding_error, is_the_error_of_round) {
    expect_the_error_of_round(simd::integer_set{0, 8, true}, 3);
    expect_the_error_of_round(simd::integer_set{-4, 8, false}, 0);
    expect_the_error_of_round(simd::float_set{2, 1, 6}, 0);
    simd::number_list<2> list;
    list.numbers = {-1, 0, 1, 1};
    list.codes = {0, 1, 2, 2};
    list.last[0] = simd::ordinal(-0.5F);
    list.last[1] = simd::ordinal(0.5F);
    expect_the_error_of_round(list, 0);
}

TEST(rounding_error, of_what_the_set_holds_is_0) {
    std::vector<float> const weights{-1.5F, -1, -0.5F, 0, 0.5F, 1, 1.5F, 2};
    for (float const exponent : {1.0F, 2.0F, 2.4F}) {
        EXPECT_EQ(simd::rounding_error(simd::integer_set{0, 8, true}, 8, weights.data(), 0.5F, 3, exponent), 0);
    }
}

} // namespace
