// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/scale/rounder.hpp"
#include "grid/own_grid.hpp"
#include "scale/infinity.hpp"
#include "scale/ranges.hpp"

namespace detent::test {

/// A grid of the library as a user's own: nothing is known of it but what `encode` and `decode` answer.
template <Grid G> struct as_own : G {
    friend constexpr bool operator==(as_own, as_own) = default;
};

/// An affine grid as a user might write it: it rounds halves up.
struct own_affine {
    static constexpr int bits = 3;
    static constexpr bool has_zero = true;
    static constexpr float lowest() { return 0; }
    static constexpr float highest() { return 7; }
    static constexpr float decode(code c) { return c; }
    static code encode(float x) { return encode(x, 0); }
    static code encode(float x, float zero) {
        return static_cast<code>(std::clamp(std::floor(x + 0.5F) + zero, 0.0F, 7.0F));
    }
    friend constexpr bool operator==(own_affine, own_affine) = default;
};

/// A grid with a state: multiples of a step, whose codes descend.
struct steps_down {
    float step = 1;
    static constexpr int bits = 5;
    float lowest() const { return -15 * step; }
    float highest() const { return 16 * step; }
    float decode(code c) const { return static_cast<float>(16 - c) * step; }
    code encode(float x) const {
        return static_cast<code>(16 - static_cast<int>(std::nearbyint(std::clamp(x / step, -15.0F, 16.0F))));
    }
    friend constexpr bool operator==(steps_down, steps_down) = default;
};

/// One bit of sign, a negative zero only for what is below zero: +0 and -0 in become +0.
struct signed_zeros {
    static constexpr int bits = 2;
    static constexpr float lowest() { return -1; }
    static constexpr float highest() { return 1; }
    static constexpr float decode(code c) { return std::array{0.0F, 1.0F, -0.0F, -1.0F}[c]; }
    static code encode(float x) { return static_cast<code>((x < 0 ? 2 : 0) + (std::abs(x) > 0.5F ? 1 : 0)); }
    friend constexpr bool operator==(signed_zeros, signed_zeros) = default;
};

} // namespace detent::test

namespace {

using namespace detent;
using detent::test::infinity;
using test::as_own;
using test::own_affine;
using test::signed_zeros;
using test::steps_down;

constexpr float largest = std::numeric_limits<float>::max();
constexpr float tiniest = std::numeric_limits<float>::denorm_min();

// Which path each takes.
static_assert(std::same_as<decltype(number_set(int_grid<4>{})), simd::integer_set> &&
              std::same_as<decltype(number_set(int_grid<8, zero::none>{})), simd::integer_set> &&
              std::same_as<decltype(number_set(int_grid<1, zero::none>{})), simd::number_list<1>> &&
              std::same_as<decltype(number_set(e4m3{})), simd::float_set> &&
              std::same_as<decltype(number_set(as_own<e4m3>{})), simd::number_list<8>> &&
              std::same_as<decltype(number_set(nf4{})), simd::number_list<4>> &&
              std::same_as<decltype(number_set(own_affine{})), own_affine>);

/// Numbers, all middles between neighbours, what is next to each, and random, tiny and huge ones.
template <Grid G> std::vector<float> weights_for(G const& grid) {
    std::vector<float> numbers;
    for (int c = 0; c < 1 << G::bits; ++c) {
        if (float const v = grid.decode(static_cast<code>(c)); !std::isnan(v)) {
            numbers.push_back(v);
        }
    }
    std::ranges::sort(numbers);
    std::vector<float> weights{0.0F, -0.0F, 1e-30F, -1e-30F, 1e30F, -1e30F, infinity, -infinity};
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        weights.push_back(numbers[i]);
        weights.push_back(i == 0 ? 2 * numbers[i] : static_cast<float>(0.5 * numbers[i - 1] + 0.5 * numbers[i]));
        weights.push_back(numbers[i] + 0.5F); // ties of an affine grid
        weights.push_back(-numbers[i] - 0.5F);
    }
    for (std::size_t i = 0, n = weights.size(); i < n; ++i) {
        float const below = std::nextafter(weights[i], -infinity);
        float const above = std::nextafter(weights[i], infinity);
        weights.insert(weights.end(),
                       {below, above, std::nextafter(below, -infinity), std::nextafter(above, infinity)});
    }
    for (float& x : weights) {
        x = std::clamp(x, -largest, largest);
    }
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform(-1.2F, 1.2F);
    float const reach = std::max(-grid.lowest(), grid.highest());
    for (int i = 0; i < 500; ++i) {
        float const x = uniform(random) * reach;
        weights.insert(weights.end(), {x, std::ldexp(x, -(i % 20)), std::ldexp(x, -(i % 150))});
    }
    for (float const x : {tiniest, 3 * tiniest, 1e-40F, std::numeric_limits<float>::min()}) {
        weights.insert(weights.end(), {x, -x});
    }
    std::ranges::shuffle(weights, random);
    return weights;
}

template <Grid G>
void expect_scalar(G const& grid, std::size_t n, float const* weights, float const* scales, float const* zeros,
                   code const* codes, float const* numbers) {
    for (std::size_t i = 0; i < n; ++i) {
        tile_scale const s{scales[i], zeros[i]};
        code const c = encode(grid, weights[i], s);
        ASSERT_EQ(codes[i], c) << "weight " << weights[i] << ", scale " << s.scale << ", zero " << s.zero;
        // Bits, because -0 is not +0 here.
        ASSERT_EQ(std::bit_cast<std::uint32_t>(numbers[i]), std::bit_cast<std::uint32_t>(decode(grid, c, s)))
            << "weight " << weights[i] << ", scale " << s.scale << ", zero " << s.zero;
    }
}

/// The same bits as the scalar `encode` and `decode`, for own and for shared scales.
template <Grid G> void expect_rounds_as_scalar(G const& grid) {
    SCOPED_TRACE(testing::PrintToString(static_cast<int>(G::bits)) + " bits up to " + std::to_string(grid.highest()));
    rounder<G> const round(grid);
    auto weights = weights_for(grid);
    auto const n = weights.size();
    std::mt19937 random(4);
    std::uniform_real_distribution<float> uniform(0.01F, 2);
    std::uniform_int_distribution<int> zero_point(0, (1 << G::bits) - 1);
    std::vector<float> scales(n, 1.0F);
    std::vector<float> zeros(n, 0.0F);
    std::vector<code> codes(n);
    std::vector<float> numbers(n);
    auto const check = [&] {
        round(static_cast<index_t>(n), weights.data(), scales.data(), zeros.data(), codes.data(), numbers.data());
        expect_scalar(grid, n, weights.data(), scales.data(), zeros.data(), codes.data(), numbers.data());
    };
    auto const check_shared = [&](tile_scale s) {
        std::ranges::fill(scales, s.scale);
        std::ranges::fill(zeros, s.zero);
        round(static_cast<index_t>(n), weights.data(), s, codes.data(), numbers.data());
        expect_scalar(grid, n, weights.data(), scales.data(), zeros.data(), codes.data(), numbers.data());
    };
    check();
    for (float const scale : {1.0F, 0.3F, 0x1p-24F, 65504.0F, 0x1p-126F, largest}) {
        check_shared({scale, 0});
        check_shared({scale, -0.0F}); // as minmax_range has it where no weight is below 0
        if (AffineGrid<G>) {
            check_shared({scale, static_cast<float>(zero_point(random))});
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        scales[i] = uniform(random);
        zeros[i] = AffineGrid<G> ? static_cast<float>(zero_point(random)) : 0.0F;
    }
    check();
    for (std::size_t i = 0; i < n; ++i) { // ties and thresholds again, up to rounding
        weights[i] = std::clamp(weights[i] * scales[i], -largest, largest);
    }
    check();
    for (index_t length = 0; length <= 70; ++length) {
        auto const size = static_cast<std::size_t>(length);
        std::size_t const from = 3 * size;
        std::vector<code> some(size + 16, 0xA5);
        std::vector<float> there(size + 16, -7);
        round(length, &weights[from], &scales[from], &zeros[from], some.data(), there.data());
        expect_scalar(grid, size, &weights[from], &scales[from], &zeros[from], some.data(), there.data());
        for (std::size_t i = size; i < size + 16; ++i) {
            ASSERT_TRUE(some[i] == 0xA5 && there[i] == -7) << length;
        }
    }
}

template <class F> void with_all_bits(F const& f) {
    [&]<int... Less>(std::integer_sequence<int, Less...>) { (f.template operator()<Less + 1>(), ...); }
    (std::make_integer_sequence<int, 8>{});
}

TEST(rounder, integers) {
    with_all_bits([]<int Bits> {
        expect_rounds_as_scalar(int_grid<Bits>{});
        expect_rounds_as_scalar(int_grid<Bits, zero::none>{});
    });
}

TEST(rounder, floats) {
    with_all_bits([]<int E> {
        [&]<int... M>(std::integer_sequence<int, M...>) { (expect_rounds_as_scalar(fp_grid<E, M>{}), ...); }
        (std::make_integer_sequence<int, 8 - E>{});
        if constexpr (E % 2 == 1) {
            expect_rounds_as_scalar(as_own<fp_grid<E, 7 - E>>{});
        }
    });
}

TEST(rounder, floats_of_ocp) {
    expect_rounds_as_scalar(e4m3{});
    expect_rounds_as_scalar(e5m2{});
    expect_rounds_as_scalar(as_own<e4m3>{});
    expect_rounds_as_scalar(as_own<e5m2>{});
}

TEST(rounder, codebooks) {
    expect_rounds_as_scalar(nf4{});
    expect_rounds_as_scalar(ternary{});
    expect_rounds_as_scalar(test::five{});
}

TEST(rounder, grids_of_users) {
    expect_rounds_as_scalar(as_own<int_grid<4, zero::none>>{});
    expect_rounds_as_scalar(test::powers_of_two{});
    expect_rounds_as_scalar(own_affine{});
    expect_rounds_as_scalar(steps_down{});
    expect_rounds_as_scalar(steps_down{0.37F});
    expect_rounds_as_scalar(signed_zeros{});
}

template <Grid G> void expect_error(G const& grid, float zero) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    matrix const w = matrix::NullaryExpr(1, 37, [&] { return normal(random); });
    tile_scale const s{0.3F, zero};
    for (float const norm : {1.0F, 2.0F, 2.4F}) {
        double const expected = test::error_of(grid, w, s, norm);
        EXPECT_NEAR(rounder<G>(grid).error(w.size(), w.data(), s, norm), expected, 2e-5 * expected) << norm;
    }
}

TEST(rounder, error_is_that_of_decoded_weights) {
    expect_error(int_grid<3>{}, 2);
    expect_error(own_affine{}, 2); // one by one
    expect_error(nf4{}, 0);
    expect_error(test::steps_down{0.5F}, 0);
}

} // namespace
