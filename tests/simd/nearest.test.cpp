// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/linear.hpp"
#include "detent/simd/nearest.hpp"

namespace {

using namespace detent;

TEST(ordinal, counts_floats_from_the_lowest_to_the_highest) {
    float const infinity = std::numeric_limits<float>::infinity();
    for (float const x : {-infinity, -3e38F, -1.5F, -1e-38F, -1e-45F, 0.0F, 1e-45F, 1e-38F, 0.1F, 1.0F, 3e38F}) {
        EXPECT_EQ(simd::ordinal(std::nextafter(x, infinity)), simd::ordinal(x) + 1) << x;
        EXPECT_EQ(simd::float_at(simd::ordinal(x)), x);
        EXPECT_EQ(simd::ordinal(simd::floats(x)).get(0), simd::ordinal(x));
    }
    EXPECT_EQ(simd::ordinal(0.0F), 0);
    EXPECT_EQ(simd::ordinal(-0.0F), -1);
    EXPECT_TRUE(std::signbit(simd::float_at(-1)));
    EXPECT_EQ(simd::ordinal(simd::floats(-0.0F)).get(0), -1);
}

template <int Bits> void expect_finds_the_number(std::size_t count, std::mt19937& random) {
    std::normal_distribution<float> normal;
    std::vector<float> last(count - 1); // of each number but the highest
    std::ranges::generate(last, [&] { return normal(random); });
    std::ranges::sort(last);
    simd::number_list<Bits> list;
    list.in_order = count % 2 == 0;
    for (std::size_t i = 0; i < count; ++i) {
        list.numbers[i] = std::sqrt(static_cast<float>(i));
        list.codes[i] = static_cast<code>(list.in_order ? i : count - 1 - i);
        if (i + 1 < count) {
            list.last[i] = simd::ordinal(last[i]);
        }
    }
    float const infinity = std::numeric_limits<float>::infinity();
    std::vector<float> weights{-infinity, -1e30F, -0.0F, 0.0F, 1e30F, infinity};
    for (float const x : last) {
        weights.insert(weights.end(), {std::nextafter(x, -infinity), x, std::nextafter(x, infinity), normal(random)});
    }
    auto const n = weights.size();
    std::vector<code> codes(n);
    std::vector<float> numbers(n);
    simd::round(list, static_cast<index_t>(n), weights.data(), 1, 0, codes.data(), numbers.data());
    for (std::size_t i = 0; i < n; ++i) {
        auto const before = std::ranges::count_if(last, [&](float x) { return x < weights[i]; });
        auto const position = static_cast<std::size_t>(before);
        ASSERT_EQ(numbers[i], list.numbers[position]) << Bits << " bits, " << count << " numbers, " << weights[i];
        ASSERT_EQ(codes[i], list.codes[position]) << Bits << " bits, " << count << " numbers, " << weights[i];
    }
}

TEST(number_list, any_number_of_numbers) {
    std::mt19937 random(1);
    for (int bits = 1; bits <= 8; ++bits) {
        with_bits(bits, [&]<int Bits> {
            for (std::size_t count = 1; count <= simd::number_list<Bits>::most; ++count) {
                expect_finds_the_number<Bits>(count, random);
            }
        });
    }
}

TEST(round, any_length_with_own_or_shared_scales) {
    std::mt19937 random(2);
    std::uniform_real_distribution<float> uniform(0.5F, 20);
    simd::integer_set const integers{0, 16, true};
    for (std::size_t n = 0; n <= 70; ++n) {
        std::vector<float> weights(n), scales(n), zeros(n), numbers(n + 16, -7), shared_numbers(n + 16, -7);
        std::vector<code> codes(n + 16, 99), shared_codes(n + 16, 99);
        for (std::size_t i = 0; i < n; ++i) {
            weights[i] = uniform(random) - 10;
            scales[i] = uniform(random) / 10;
            zeros[i] = std::nearbyint(uniform(random) / 2);
        }
        auto const size = static_cast<index_t>(n);
        simd::round(integers, size, weights.data(), scales.data(), zeros.data(), 1, codes.data(), numbers.data());
        simd::round(integers, size, weights.data(), 0.7F, 5, shared_codes.data(), shared_numbers.data());
        auto const expected = [&](std::size_t i, float scale, float zero) {
            return std::clamp(std::nearbyint(weights[i] / scale) + zero, 0.0F, 15.0F);
        };
        for (std::size_t i = 0; i < n; ++i) {
            ASSERT_EQ(static_cast<float>(codes[i]), expected(i, scales[i], zeros[i])) << n << ", " << i;
            ASSERT_EQ(numbers[i], (static_cast<float>(codes[i]) - zeros[i]) * scales[i]) << n << ", " << i;
            ASSERT_EQ(static_cast<float>(shared_codes[i]), expected(i, 0.7F, 5)) << n << ", " << i;
            ASSERT_EQ(shared_numbers[i], (static_cast<float>(shared_codes[i]) - 5) * 0.7F) << n << ", " << i;
        }
        for (std::size_t i = n; i < n + 16; ++i) { // nothing past the end is written
            ASSERT_TRUE(codes[i] == 99 && shared_codes[i] == 99 && numbers[i] == -7 && shared_numbers[i] == -7);
        }
    }
}

} // namespace
