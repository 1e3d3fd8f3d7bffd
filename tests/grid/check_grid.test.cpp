// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>

#include <gtest/gtest.h>

#include "detent/grid/check_grid.hpp"
#include "grid/own_grid.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

/// A grid of a user who looks for the least distance in float: all distances from the largest floats are equal, and the
/// code is then that of the first number, or of 0 as `start` says.
struct ties_far_away {
    static constexpr int bits = 3;
    static constexpr std::array<float, 8> values{-4, -2, -1, 0, 0.5F, 1, 2, 4};
    std::size_t start = 3;

    static constexpr float lowest() { return -4; }
    static constexpr float highest() { return 4; }
    static constexpr float decode(code c) { return values[c]; }
    constexpr code encode(float x) const {
        std::size_t nearest = start;
        for (std::size_t c = 0; c < values.size(); ++c) {
            float const here = values[c] - x;
            float const best = values[nearest] - x;
            if ((here < 0 ? -here : here) < (best < 0 ? -best : best)) {
                nearest = c;
            }
        }
        return static_cast<code>(nearest);
    }
    friend constexpr bool operator==(ties_far_away, ties_far_away) = default;
};

/// `powers_of_two` with one thing wrong.
struct broken {
    static constexpr int bits = 3;
    float low = -4;
    float high = 4;
    code instead_of_5 = 5;
    bool turned = false;

    static constexpr float decode(code c) { return test::powers_of_two::decode(c); }
    float lowest() const { return low; }
    float highest() const { return high; }
    code encode(float x) const {
        if (turned && x > 2.5F && x < 3.5F) {
            return 0;
        }
        code const c = test::powers_of_two::encode(x);
        return c == 5 ? instead_of_5 : c;
    }
    friend constexpr bool operator==(broken const&, broken const&) = default;
};

/// An affine grid that forgets to clamp after the zero point is added.
struct wraps_around : test::half_up {
    code encode(float x) const { return encode(x, 0); }
    code encode(float x, float zero) const {
        return static_cast<code>(static_cast<int>(std::clamp(std::floor(x + up), 0.0F, 7.0F) + zero) & 7);
    }
    friend constexpr bool operator==(wraps_around, wraps_around) = default;
};

template <Grid G> std::string complaint(G const& grid) {
    return failure_message([&] { check_grid(grid); });
}

TEST(check_grid, right_grids_pass) {
    EXPECT_EQ(complaint(int_grid<4>{}), "");
    EXPECT_EQ(complaint(e4m3{}), "");
    EXPECT_EQ(complaint(test::powers_of_two{}), "");
    EXPECT_EQ(complaint(test::five{}), "");
    EXPECT_EQ(complaint(test::odd_multiples{}), "");
    EXPECT_EQ(complaint(test::odd_multiples{1e-3F}), "");
    EXPECT_EQ(complaint(test::half_up{}), "");
    EXPECT_EQ(complaint(broken{}), "");
}

TEST(check_grid, grids_of_the_library_pass_too) {
    EXPECT_EQ(fault_of(int_grid<1, zero::none>{}), grid_fault::none);
    EXPECT_EQ(fault_of(int_grid<8>{}), grid_fault::none);
    EXPECT_EQ(fault_of(e2m1{}), grid_fault::none);
    EXPECT_EQ(fault_of(e5m2{}), grid_fault::none);
    EXPECT_EQ((fault_of(fp_grid<7, 0>{})), grid_fault::none);
    EXPECT_EQ(fault_of(nf4{}), grid_fault::none);
    EXPECT_EQ(fault_of(ternary{}), grid_fault::none);
    EXPECT_EQ(fault_of(test::uneven_pair{}), grid_fault::none);
}

TEST(check_grid, what_lies_far_beyond_an_end_is_that_end) {
    std::string const expected = "grid: what lies far beyond lowest() or highest() is not encoded as that end";
    EXPECT_EQ(complaint(ties_far_away{}), expected);
    EXPECT_EQ(complaint(ties_far_away{0}), expected);
    EXPECT_EQ(complaint(ties_far_away{7}), expected);
    EXPECT_EQ(complaint(wraps_around{}), expected);
}

TEST(check_grid, ends_are_numbers) {
    std::string const expected =
        "grid: lowest() and highest() are not its smallest and largest numbers, encoded and decoded";
    EXPECT_EQ(complaint(broken{.low = -5}), expected);
    EXPECT_EQ(complaint(broken{.high = 2}), expected);
    EXPECT_EQ(complaint(broken{.low = 4, .high = 4}), expected);
}

TEST(check_grid, numbers_are_encoded_as_themselves_with_the_bits_that_there_are) {
    std::string const expected = "grid: a number is not encoded as itself, or its code has too many bits";
    EXPECT_EQ(complaint(broken{.instead_of_5 = 4}), expected);
    EXPECT_EQ(complaint(broken{.instead_of_5 = 8}), expected);
    EXPECT_EQ(complaint(broken{.instead_of_5 = 255}), expected);
}

TEST(check_grid, larger_numbers_are_not_encoded_as_smaller_ones) {
    EXPECT_EQ(complaint(broken{.turned = true}), "grid: a larger number is encoded as a smaller one");
}

struct two_bits {
    static constexpr int bits = 2;
    static constexpr float lowest() { return -1; }
    static constexpr float highest() { return 2; }
    static constexpr float decode(code c) { return static_cast<float>(c) - 1; }
    static constexpr code encode(float x) { return x < -0.5F ? 0 : x < 0.5F ? 1 : x < 1.5F ? 2 : 3; }
    friend constexpr bool operator==(two_bits, two_bits) = default;
};

TEST(check_grid, compilers_check_what_they_can) {
    static_assert(fault_of(ties_far_away{}) == grid_fault::far);
    static_assert(CheckedByCompiler<two_bits> && CheckedByCompiler<nf4> && !CheckedByCompiler<test::powers_of_two>);
    static_assert(!CheckedByCompiler<test::odd_multiples>, "whose value is not known");
    EXPECT_EQ(complaint(two_bits{}), "");
}

} // namespace
