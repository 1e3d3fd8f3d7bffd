// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/integer_dot.hpp"

namespace {

using namespace detent;

template <class T> class integer_dot : public testing::Test {};
using small_integers = testing::Types<std::int8_t, std::int16_t>;
TYPED_TEST_SUITE(integer_dot, small_integers);

/// What a stored weight means: bytes may be unsigned.
std::int64_t weight(std::int16_t stored) { return stored; }
std::int64_t weight(std::int8_t stored) {
    return simd::lowest_weight_byte == 0 ? std::int64_t{static_cast<std::uint8_t>(stored)} : stored;
}

/// Random integers, or nothing but a few extreme ones.
template <class T> std::vector<T> integers(index_t n, bool extreme, unsigned seed) {
    std::mt19937 random(seed);
    T const ends[] = {std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), T{-1}, T{0}};
    std::vector<T> v(static_cast<std::size_t>(n));
    std::ranges::generate(v, [&] { return extreme ? ends[random() % 4] : static_cast<T>(random() >> 3); });
    return v;
}

template <class T> std::int32_t reference(T const* w, T const* a, index_t n) {
    std::int64_t sum = 0;
    for (index_t i = 0; i < n; ++i) {
        sum += weight(w[i]) * a[i];
    }
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(sum));
}

TYPED_TEST(integer_dot, products_of_words_are_exact_modulo_2_to_32) {
    constexpr index_t per_word = simd::per_word<TypeParam>;
    constexpr index_t n = simd::lanes * per_word;
    for (unsigned seed = 0; seed < 200; ++seed) {
        auto const w = integers<TypeParam>(n, seed % 2 == 0, 2 * seed);
        auto const a = integers<TypeParam>(n, seed % 2 == 0, 2 * seed + 1);
        std::int32_t sums[simd::lanes];
        auto const before = simd::ints(static_cast<std::int32_t>(seed * 0x01234567U));
        simd::add_products<TypeParam>(before, simd::load_words(w.data()), simd::load_words(a.data()))
            .store_unaligned(sums);
        for (index_t i = 0; i < simd::lanes; ++i) {
            auto const products = reference(w.data() + i * per_word, a.data() + i * per_word, per_word);
            EXPECT_EQ(static_cast<std::uint32_t>(sums[i]), seed * 0x01234567U + static_cast<std::uint32_t>(products));
        }
    }
}

TYPED_TEST(integer_dot, words_of_nothing_but_the_lowest_or_the_highest_do_not_saturate) {
    using limits = std::numeric_limits<TypeParam>;
    constexpr index_t n = simd::lanes * simd::per_word<TypeParam>;
    for (TypeParam const w : {limits::min(), limits::max(), TypeParam{-1}}) {
        for (TypeParam const a : {limits::min(), limits::max(), TypeParam{-1}}) {
            std::vector<TypeParam> const ws(4 * n, w);
            std::vector<TypeParam> const as(n, a);
            std::int32_t sums[4];
            simd::dot_four_rows<TypeParam>(ws.data(), n, as.data(), n, sums);
            for (std::int32_t const sum : sums) {
                EXPECT_EQ(sum, reference(ws.data(), as.data(), n)) << int{w} << " " << int{a};
            }
        }
    }
}

TYPED_TEST(integer_dot, rows_of_any_length_from_any_address) {
    constexpr index_t width = simd::lanes * simd::per_word<TypeParam>;
    for (index_t n = 0; n <= 3 * width; ++n) {
        index_t const stride = n + 3;
        auto const w = integers<TypeParam>(1 + 4 * stride + width, false, 5);
        auto const a = integers<TypeParam>(1 + n + width, false, 6); // what follows the last must not count
        std::int32_t sums[5] = {-7, -7, -7, -7, -7};
        simd::dot_four_rows<TypeParam>(w.data() + 1, stride, a.data() + 1, n, sums);
        for (index_t r = 0; r < 4; ++r) {
            ASSERT_EQ(sums[r], reference(w.data() + 1 + r * stride, a.data() + 1, n)) << n;
        }
        EXPECT_EQ(sums[4], -7);
    }
}

TEST(interleave_four_rows, writes_the_words_of_four_rows_beside_each_other) {
    for (index_t n = 0; n <= 20; ++n) {
        index_t const stride = n + 3;
        std::vector<std::int32_t> rows(static_cast<std::size_t>(4 * stride));
        std::iota(rows.begin(), rows.end(), 0);
        std::vector<std::int32_t> out(static_cast<std::size_t>(n * 7 + 4), -7);
        simd::interleave_four_rows(rows.data(), stride, n, out.data(), 7);
        for (index_t i = 0; i < std::ssize(out); ++i) {
            ASSERT_EQ(out[static_cast<std::size_t>(i)], i % 7 < 4 && i / 7 < n ? i % 7 * stride + i / 7 : -7) << n;
        }
    }
}

} // namespace
