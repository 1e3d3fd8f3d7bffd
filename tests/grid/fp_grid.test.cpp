// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "grid/grid_properties.hpp"

namespace {

using namespace detent;
using test::first_numbers;

/// Calls `f.operator()<E, M>()` for all splits of up to 8 bits.
template <class F> void for_all_splits(F f) {
    auto const with_mantissas = [&]<int E, int... M>(std::integer_sequence<int, M...>) {
        (f.template operator()<E, M>(), ...);
    };
    [&]<int... Less>(std::integer_sequence<int, Less...>) {
        (with_mantissas.template operator()<Less + 1>(std::make_integer_sequence<int, 7 - Less>{}), ...);
    }
    (std::make_integer_sequence<int, 7>{});
}

TEST(fp_grid, encodes_the_nearest_number) {
    for_all_splits([]<int E, int M> {
        SCOPED_TRACE("E" + std::to_string(E) + "M" + std::to_string(M));
        test::expect_grid(fp_grid<E, M>{});
    });
    test::expect_grid(e4m3{});
    test::expect_grid(e5m2{});
}

TEST(fp_grid, decodes_sign_exponent_and_mantissa) {
    for_all_splits([]<int E, int M> {
        for (int c = 0; c < 1 << (1 + E + M); ++c) {
            int const sign = c >> (E + M);
            int const exponent = (c >> M) & ((1 << E) - 1);
            int const mantissa = c & ((1 << M) - 1);
            int const bias = (1 << (E - 1)) - 1;
            double const magnitude = exponent == 0 ? std::ldexp(mantissa, 1 - bias - M)
                                                   : std::ldexp((1 << M) + mantissa, exponent - bias - M);
            ASSERT_EQ((fp_grid<E, M>::decode(static_cast<code>(c))), sign == 1 ? -magnitude : magnitude)
                << "E" << E << "M" << M << " code " << c;
        }
    });
}

TEST(fp_grid, ties_go_to_the_even_mantissa) {
    for_all_splits([]<int E, int M> {
        using grid = fp_grid<E, M>;
        for (int c = 0; c + 1 < 1 << (E + M); ++c) { // neighbouring codes are neighbouring numbers
            float const low = grid::decode(static_cast<code>(c));
            float const high = grid::decode(static_cast<code>(c + 1));
            double const middle = 0.5 * (double{low} + high);
            int const even = c % 2 == 0 ? c : c + 1;
            // With no mantissa bits, numbers of the same binade do not exist: ties go up, to a significand of 2.
            int const expected = M == 0 && c > 0 ? c + 1 : even;
            ASSERT_EQ(grid::encode(static_cast<float>(middle)), expected) << "E" << E << "M" << M << ' ' << middle;
            ASSERT_EQ(grid::encode(static_cast<float>(-middle)), expected | 1 << (E + M));
        }
    });
}

TEST(fp_grid, known_numbers) {
    EXPECT_EQ(first_numbers(e2m1{}, 8), (std::vector<float>{0, 0.5F, 1, 1.5F, 2, 3, 4, 6}));
    EXPECT_EQ(first_numbers(fp_grid<3, 0>{}, 8), (std::vector<float>{0, 0.25F, 0.5F, 1, 2, 4, 8, 16}));
    EXPECT_EQ(first_numbers(fp_grid<1, 2>{}, 8), (std::vector<float>{0, 0.5F, 1, 1.5F, 2, 2.5F, 3, 3.5F}));
    EXPECT_EQ(e4m3::highest(), 448);
    EXPECT_EQ(e5m2::highest(), 57344);
    EXPECT_EQ((fp_grid<4, 3>::highest()), 480);
    EXPECT_EQ((fp_grid<5, 2>::highest()), 114688);
    EXPECT_EQ(e4m3::decode(1), 0x1p-9F);
    EXPECT_EQ(e5m2::decode(1), 0x1p-16F);
}

TEST(fp_grid, reserved_codes_are_no_numbers) {
    EXPECT_TRUE(std::isnan(e4m3::decode(0x7F)));
    EXPECT_TRUE(std::isnan(e4m3::decode(0xFF)));
    EXPECT_EQ(e4m3::decode(0x7E), 448);
    EXPECT_TRUE(std::isnan(e5m2::decode(0x7C)));
    EXPECT_TRUE(std::isnan(e5m2::decode(0xFC)));
    for (int c : {0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF}) {
        EXPECT_TRUE(std::isnan(e5m2::decode(static_cast<code>(c)))) << c;
    }
    for (float const x : {448.0F, 464.0F, 480.0F, 1e6F, 1e38F}) {
        EXPECT_EQ(e4m3::encode(x), 0x7E);
        EXPECT_EQ(e4m3::encode(-x), 0xFE);
    }
    for (float const x : {57344.0F, 61440.0F, 65536.0F, 1e38F}) {
        EXPECT_EQ(e5m2::encode(x), 0x7B);
        EXPECT_EQ(e5m2::encode(-x), 0xFB);
    }
}

} // namespace
