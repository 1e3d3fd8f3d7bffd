// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <utility>

#include <gtest/gtest.h>

#include "detent/grid/int_grid.hpp"
#include "grid/grid_properties.hpp"

namespace {

using namespace detent;

template <class F> void for_all_widths(F f) {
    [&]<int... Less>(std::integer_sequence<int, Less...>) { (f.template operator()<Less + 1>(), ...); }
    (std::make_integer_sequence<int, 8>{});
}

TEST(int_grid, encodes_the_nearest_integer) {
    for_all_widths([]<int Bits> {
        SCOPED_TRACE(Bits);
        test::expect_grid(int_grid<Bits>{});
        test::expect_grid(int_grid<Bits, zero::none>{});
    });
}

TEST(int_grid, has_all_integers_of_its_width) {
    for_all_widths([]<int Bits> {
        for (int c = 0; c < 1 << Bits; ++c) {
            auto const as_code = static_cast<code>(c);
            EXPECT_EQ(int_grid<Bits>::decode(as_code), c);
            int const symmetric = Bits == 1 ? 2 * c - 1 : c - (1 << (Bits - 1));
            EXPECT_EQ((int_grid<Bits, zero::none>::decode(as_code)), symmetric);
        }
    });
}

TEST(int_grid, ties_go_to_the_even_integer) {
    for_all_widths([]<int Bits> {
        if constexpr (Bits > 1) {
            for (int n = 0; n < (1 << Bits) - 1; ++n) {
                auto const low = static_cast<float>(n);
                EXPECT_EQ(int_grid<Bits>::encode(low + 0.5F), n % 2 == 0 ? n : n + 1);
                float const symmetric = low - (1 << (Bits - 1));
                EXPECT_EQ((int_grid<Bits, zero::none>::encode(symmetric + 0.5F)), n % 2 == 0 ? n : n + 1);
            }
        }
    });
}

TEST(int_grid, adds_the_zero_point_after_rounding_and_before_clamping) {
    using grid = int_grid<4>;
    EXPECT_EQ(grid::encode(0.5F, 3), 3);  // round(0.5) + 3, not round(3.5)
    EXPECT_EQ(grid::encode(1.5F, 3), 5);  // round(1.5) + 3, not round(4.5)
    EXPECT_EQ(grid::encode(-0.5F, 3), 3); // not round(2.5)
    EXPECT_EQ(grid::encode(-2, 5), 3);    // not clamp(-2) + 5
    EXPECT_EQ(grid::encode(20, 15), 15);
    EXPECT_EQ(grid::encode(-20, 15), 0);
    EXPECT_EQ(grid::encode(1e30F, 0), 15);
    EXPECT_EQ(grid::encode(-1e30F, 15), 0);
    for_all_widths([]<int Bits> {
        for (int z = 0; z < 1 << Bits; ++z) {
            for (float x = -300; x < 300; x += 0.25F) {
                double const expected = std::min(std::max(std::nearbyint(double{x}) + z, 0.0), double{(1 << Bits) - 1});
                ASSERT_EQ(int_grid<Bits>::encode(x, static_cast<float>(z)), expected) << x << ' ' << z;
            }
        }
    });
}

} // namespace
