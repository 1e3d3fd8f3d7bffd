// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/integer_form.hpp"
#include "grid/own_grid.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_solution.hpp"

namespace {

using namespace detent;

template <Grid G> std::optional<kernel::integer_table> integers_of(G const& grid, bool has_zeros = false) {
    auto const table = table_of(grid);
    auto const found = kernel::integers_of(table.data(), G::bits, has_zeros);
    for (index_t c = 0; found && c < std::ssize(table); ++c) {
        auto const number = table[static_cast<std::size_t>(c)];
        auto const integer = found->integers[static_cast<std::size_t>(c)];
        EXPECT_TRUE(std::isnan(number) || std::ldexp(static_cast<float>(integer), -found->exponent) == number) << c;
        EXPECT_LE(found->lowest, integer);
        EXPECT_GE(found->highest, integer);
    }
    return found;
}

TEST(integers_of, finds_the_smallest_integers_of_a_grid) {
    auto const expect = [](auto const& grid, int exponent, int lowest, int highest) {
        auto const found = integers_of(grid);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->exponent, exponent);
        EXPECT_EQ(found->lowest, lowest);
        EXPECT_EQ(found->highest, highest);
    };
    expect(e2m1{}, 1, -12, 12);
    expect(fp_grid<3, 0>{}, 2, -64, 64);
    expect(fp_grid<1, 2>{}, 1, -7, 7);
    expect(fp_grid<2, 3>{}, 3, -60, 60);
    expect(fp_grid<1, 6>{}, 5, -127, 127);
    expect(fp_grid<3, 4>{}, 6, -1984, 1984);
    expect(int_grid<8>{}, 0, 0, 255);
    expect(int_grid<8, zero::none>{}, 0, -128, 127);
    expect(int_grid<1, zero::none>{}, 0, -1, 1);
    expect(ternary{}, 0, -1, 1); // whose fourth code is NaN
    expect(test::powers_of_two{}, 1, -8, 8);
}

TEST(integers_of, finds_none_where_numbers_are_no_small_integers_times_a_power_of_two) {
    EXPECT_FALSE(integers_of(nf4{}));
    EXPECT_FALSE(integers_of(e4m3{}));
    EXPECT_FALSE(integers_of(e5m2{}));
    EXPECT_FALSE(integers_of(test::five{}));
    float const infinite[] = {0, std::numeric_limits<float>::infinity()};
    EXPECT_FALSE(kernel::integers_of(infinite, 1, false));
    float const none[] = {std::nanf(""), std::nanf("")};
    EXPECT_FALSE(kernel::integers_of(none, 1, false));
}

TEST(integers_of, takes_a_common_factor_out_unless_there_are_zero_points) {
    float const table[] = {-24, 0, 8, 40};
    auto const found = kernel::integers_of(table, 2, false);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->exponent, -3);
    EXPECT_EQ(found->highest, 5);
    EXPECT_EQ(kernel::integers_of(table, 2, true)->exponent, 0);
    float const zeros[] = {0, 0};
    EXPECT_EQ(kernel::integers_of(zeros, 1, false)->exponent, 0);
}

template <class T, Grid W, Grid A> std::optional<kernel::integer_form> form(int most_shift = 0) {
    auto const w = pack(test::random_solution(W{}, {3, 40}, {1, 8}, 1));
    auto const x = test::random_activations(A{}, {2, 40}, true, most_shift, 1);
    return kernel::integer_form_of<T>(w.view(), x);
}

using int4 = int_grid<4, zero::none>;
using int8 = int_grid<8, zero::none>;
using e3m0 = fp_grid<3, 0>;

TEST(integer_form, bytes_hold_up_to_256_consecutive_integers) {
    EXPECT_TRUE((form<std::int8_t, e2m1, e2m1>()));
    EXPECT_TRUE((form<std::int8_t, e2m1, int8>()));
    EXPECT_TRUE((form<std::int8_t, e3m0, int_grid<8>>()));
    EXPECT_TRUE((form<std::int8_t, int_grid<8>, int_grid<8>>()));
    EXPECT_FALSE((form<std::int8_t, fp_grid<3, 4>, int8>()));
    EXPECT_FALSE((form<std::int8_t, int4, fp_grid<3, 4>>()));
    EXPECT_TRUE((form<std::int16_t, fp_grid<3, 4>, fp_grid<3, 4>>()));
    EXPECT_FALSE((form<std::int16_t, nf4, int8>()));
    EXPECT_FALSE((form<std::int16_t, int8, nf4>()));
    EXPECT_FALSE((form<std::int16_t, e4m3, int8>()));
}

TEST(integer_form, shifts_need_more_bits) {
    EXPECT_TRUE((form<std::int8_t, e2m1, e2m1>(3))); // 12 << 3
    EXPECT_FALSE((form<std::int8_t, e2m1, e2m1>(4)));
    EXPECT_TRUE((form<std::int16_t, e2m1, e2m1>(4)));
    EXPECT_FALSE((form<std::int8_t, e2m1, e3m0>(7)));
    EXPECT_TRUE((form<std::int16_t, e2m1, e3m0>(7))); // 64 << 7
    EXPECT_FALSE((form<std::int16_t, e2m1, e3m0>(9)));
}

TEST(integer_form, shifts_of_negative_numbers_count_too) {
    auto const w = pack(test::random_solution(e2m1{}, {3, 40}, {1, 8}, 1));
    auto x = test::random_activations(int_grid<4>{}, {2, 40}, false, 0, 1);
    x.scales[0].zero = 15; // numbers of -15 to 0
    x.shifts.assign(40, 0);
    x.shifts[3] = 3;
    EXPECT_TRUE(kernel::integer_form_of<std::int8_t>(w.view(), x));
    x.shifts[3] = 4;
    EXPECT_FALSE(kernel::integer_form_of<std::int8_t>(w.view(), x));
}

TEST(integer_form, zero_points_are_subtracted_where_there_is_room) {
    EXPECT_FALSE((form<std::int8_t, e2m1, int_grid<4>>()->zeros_apart));
    EXPECT_TRUE((form<std::int8_t, e2m1, int_grid<8>>()->zeros_apart));
    EXPECT_FALSE((form<std::int16_t, e2m1, int_grid<8>>()->zeros_apart));
    EXPECT_FALSE((form<std::int8_t, e2m1, int_grid<8>>(1))); // each feature would need its own
    auto const w = pack(test::random_solution(e2m1{}, {3, 40}, {1, 8}, 1));
    auto x = test::random_activations(int_grid<8>{}, {2, 40}, false, 0, 1);
    x.scales[0].zero = 128; // numbers of -128 to 127
    EXPECT_FALSE(kernel::integer_form_of<std::int8_t>(w.view(), x)->zeros_apart);
    x.scales[0].zero = 127;
    EXPECT_TRUE(kernel::integer_form_of<std::int8_t>(w.view(), x)->zeros_apart);
}

TEST(integer_form, a_zero_point_that_is_no_integer_has_no_form) {
    auto const w = pack(test::random_solution(e2m1{}, {3, 40}, {1, 8}, 1));
    auto x = test::random_activations(int_grid<4>{}, {2, 40}, true, 0, 1);
    x.scales[1].zero = 2.5F;
    EXPECT_FALSE(kernel::integer_form_of<std::int16_t>(w.view(), x));
    x.scales[1].zero = std::nanf("");
    EXPECT_FALSE(kernel::integer_form_of<std::int16_t>(w.view(), x));
}

TEST(integer_form, runs_of_the_largest_integers_stay_within_int32) {
    auto const bytes = form<std::int8_t, int_grid<8>, int_grid<8>>();
    EXPECT_GE(bytes->longest_run, 33025); // of 255 * 255
    EXPECT_LE(bytes->longest_run * 255 * 200, 2147483647LL * 2);
    auto const wide = form<std::int16_t, fp_grid<3, 4>, e3m0>(8);
    ASSERT_TRUE(wide);
    EXPECT_EQ(wide->longest_run, 2147483647 / (1984 * (64 << 8)));
}

} // namespace
