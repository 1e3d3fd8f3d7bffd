// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/quantizer/named_grid.hpp"
#include "detent/scale/any_grid.hpp"
#include "grid/own_grid.hpp"

namespace {

using namespace detent;

/// Every grid that has a name.
std::vector<grid_name> all_names() {
    std::vector<grid_name> names;
    for (int bits = 1; bits <= 8; ++bits) {
        names.push_back({"int" + std::to_string(bits), false, false});
        names.push_back({"int" + std::to_string(bits), true, false});
    }
    for (int e = 1; e <= 7; ++e) {
        for (int m = 0; e + m <= 7; ++m) {
            names.push_back({"e" + std::to_string(e) + "m" + std::to_string(m), false, false});
        }
    }
    for (auto const* const name : {"ocp-e4m3", "ocp-e5m2", "nf4", "ternary"}) {
        names.push_back({name, false, false});
    }
    return names;
}

std::uint32_t bits_of_float(float x) { return std::bit_cast<std::uint32_t>(x); }

/// Numbers of the grid, the middles between neighbours, and random ones inside and outside; not a whole register.
std::vector<float> weights_for(std::vector<float> table) {
    std::erase_if(table, [](float x) { return !std::isfinite(x); });
    std::ranges::sort(table);
    std::vector<float> weights{0.0F, -0.0F, 1e-30F, -1e-30F, 1e30F, -1e30F};
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform(-1.2F, 1.2F);
    for (std::size_t i = 0; i < table.size(); ++i) {
        weights.push_back(table[i]);
        weights.push_back(0.5F * table[i] + 0.5F * table[i == 0 ? 0 : i - 1]);
        weights.push_back(uniform(random) * table.back());
        weights.push_back(std::ldexp(weights.back(), -static_cast<int>(i % 20)));
    }
    weights.resize(weights.size() | 7);
    return weights;
}

/// What a grid known at compile time says and does, for two scales; no checks here, to be compiled for every grid.
struct expectation {
    int bits = 0;
    bool has_zero = false;
    interval numbers;
    std::vector<float> table;
    std::array<std::vector<code>, 2> codes;     // of `encode`
    std::array<std::vector<float>, 2> decoded;  // of `decode`
    std::array<std::vector<code>, 2> rounded;   // of `rounder`
    std::array<std::vector<float>, 2> rounded_numbers;
    std::vector<any_grid> any;
};

constexpr std::array<tile_scale, 2> two_scales{tile_scale{1, 0}, tile_scale{0.3F, 1}};

template <Grid G> expectation expect(G const& grid) {
    auto const table = table_of(grid);
    expectation e;
    e.bits = G::bits;
    e.has_zero = AffineGrid<G>;
    e.numbers = {grid.lowest(), grid.highest()};
    e.table.assign(table.begin(), table.end());
    e.any.emplace_back(grid, "its name");
    auto const weights = weights_for(e.table);
    rounder<G> const round(grid);
    for (std::size_t i = 0; i < 2; ++i) {
        tile_scale const s{two_scales[i].scale, AffineGrid<G> ? two_scales[i].zero : 0};
        for (float const w : weights) {
            e.codes[i].push_back(encode(grid, w, s));
            e.decoded[i].push_back(decode(grid, e.codes[i].back(), s));
        }
        e.rounded[i].resize(weights.size());
        e.rounded_numbers[i].resize(weights.size());
        round(std::ssize(weights), weights.data(), s, e.rounded[i].data(), e.rounded_numbers[i].data());
    }
    return e;
}

std::vector<std::uint32_t> bits_of_floats(std::vector<float> const& x) {
    std::vector<std::uint32_t> bits(x.size());
    std::ranges::transform(x, bits.begin(), bits_of_float);
    return bits;
}

TEST(any_grid, is_the_grid_it_was_made_of_to_the_bit) {
    std::size_t seen = 0;
    for (grid_name const& name : all_names()) {
        SCOPED_TRACE(name.text());
        expectation e;
        ASSERT_TRUE(visit_grid(name, [&](auto grid) { e = expect(grid); }));
        any_grid const& any = e.any.front();
        EXPECT_EQ(any.name(), "its name");
        EXPECT_EQ(any.bits(), e.bits);
        EXPECT_EQ(any.has_zero(), e.has_zero);
        EXPECT_EQ(any.numbers().low, e.numbers.low);
        EXPECT_EQ(any.numbers().high, e.numbers.high);
        EXPECT_EQ(bits_of_floats(any.table()), bits_of_floats(e.table));
        auto const weights = weights_for(e.table);
        std::vector<code> codes(weights.size());
        std::vector<float> numbers(weights.size());
        for (std::size_t i = 0; i < 2; ++i) {
            tile_scale const s{two_scales[i].scale, e.has_zero ? two_scales[i].zero : 0};
            any.round(std::ssize(weights), weights.data(), s, codes.data(), numbers.data());
            EXPECT_EQ(codes, e.codes[i]);
            EXPECT_EQ(codes, e.rounded[i]);
            EXPECT_EQ(bits_of_floats(numbers), bits_of_floats(e.decoded[i]));
            EXPECT_EQ(bits_of_floats(numbers), bits_of_floats(e.rounded_numbers[i]));
        }
        ++seen;
    }
    EXPECT_EQ(seen, 48U);
}

TEST(any_grid, knows_the_split_of_floating_point_alone) {
    for (grid_name const& name : all_names()) {
        auto const split = find_grid(name).split();
        std::string const text = name.text().starts_with("ocp-") ? name.text().substr(4) : name.text();
        if (text.starts_with("e")) {
            ASSERT_TRUE(split) << text;
            EXPECT_EQ(text, "e" + std::to_string(split->exponent_bits) + "m" + std::to_string(split->mantissa_bits));
        } else {
            EXPECT_FALSE(split) << text;
        }
    }
}

TEST(any_grid, spans_a_range_from_its_lowest_to_its_highest_number) {
    for (grid_name const& name : all_names()) {
        any_grid const grid = find_grid(name);
        double const steps = double{grid.numbers().high} - double{grid.numbers().low};
        for (interval const range : {interval{-1, 2}, {-3, 0.7F}, {0, 5}, {-0.1F, 0}}) {
            SCOPED_TRACE(name.text() + " over " + std::to_string(range.low) + " to " + std::to_string(range.high));
            tile_scale const s = grid.lay(range);
            double const farthest = std::max(-double{range.low}, double{range.high});
            double const width = grid.has_zero() ? double{range.high} - double{range.low} : 2 * farthest;
            EXPECT_NEAR(s.scale, width / steps, 1e-6 * width / steps);
            if (grid.has_zero()) { // both ends are numbers, or half a step from one
                EXPECT_EQ(s.zero, std::nearbyint(s.zero));
                EXPECT_GE(s.zero, grid.numbers().low);
                EXPECT_LE(s.zero, grid.numbers().high);
                EXPECT_NEAR((grid.numbers().low - s.zero) * s.scale, range.low, 0.5001F * s.scale);
                EXPECT_NEAR((grid.numbers().high - s.zero) * s.scale, range.high, 0.5001F * s.scale);
            } else {
                EXPECT_EQ(s.zero, 0);
            }
        }
    }
    tile_scale const tiny = any_grid(int_grid<8>{}).lay({0, std::numeric_limits<float>::denorm_min()});
    EXPECT_EQ(tiny.scale, 0x1p-126F); // never 0
    EXPECT_EQ(tiny.zero, 0);
}

// LLM-FP4's identity Q_{rho + k}(x) = 2^-k Q_rho(2^k x), which makes shifting features possible.
TEST(any_grid, a_larger_exponent_bias_is_a_shift_of_the_numbers) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0, 2);
    std::vector<float> x(203);
    std::vector<float> shifted(x.size());
    std::vector<code> codes(x.size());
    std::vector<code> codes_of_shifted(x.size());
    std::vector<float> numbers(x.size());
    std::vector<float> numbers_of_shifted(x.size());
    auto const n = static_cast<index_t>(x.size());
    int grids = 0;
    for (grid_name const& name : all_names()) {
        any_grid const grid = find_grid(name);
        if (!grid.split()) {
            continue;
        }
        ++grids;
        float const scale = 0.7F * grid.lay({-2, 2}).scale;
        std::ranges::generate(x, [&] { return normal(random); });
        for (int k = 0; k <= 15; ++k) {
            std::ranges::transform(x, shifted.begin(), [&](float v) { return std::ldexp(v, k); });
            grid.round(n, x.data(), {std::ldexp(scale, -k), 0}, codes.data(), numbers.data());
            grid.round(n, shifted.data(), {scale, 0}, codes_of_shifted.data(), numbers_of_shifted.data());
            ASSERT_EQ(codes, codes_of_shifted) << name.text() << ", shift " << k;
            for (std::size_t i = 0; i < x.size(); ++i) {
                ASSERT_EQ(bits_of_float(numbers[i]), bits_of_float(std::ldexp(numbers_of_shifted[i], -k)))
                    << name.text() << ", shift " << k << ", " << x[i];
            }
        }
    }
    EXPECT_EQ(grids, 30);
}

TEST(any_grid, is_equal_to_grids_of_the_same_numbers) {
    auto const names = all_names();
    for (std::size_t i = 0; i < names.size(); ++i) {
        for (std::size_t j = 0; j < names.size(); ++j) {
            EXPECT_EQ(find_grid(names[i]) == find_grid(names[j]), i == j) << names[i].text() << ", " << names[j].text();
        }
    }
    EXPECT_TRUE(any_grid(e2m1{}, "a") == any_grid(fp_grid<2, 1>{}, "b"));
}

/// Rounds with the bits of `encode` and `decode`, and of `rounder<G>`.
template <Grid G> void expect_rounded(G const& own, tile_scale s) {
    any_grid const any(own);
    any_grid const copy = any;
    auto const weights = weights_for(any.table());
    std::vector<code> codes(weights.size()), codes_of_rounder(weights.size());
    std::vector<float> numbers(weights.size()), numbers_of_rounder(weights.size());
    copy.round(std::ssize(weights), weights.data(), s, codes.data(), numbers.data());
    rounder<G> const round(own);
    round(std::ssize(weights), weights.data(), s, codes_of_rounder.data(), numbers_of_rounder.data());
    for (std::size_t i = 0; i < weights.size(); ++i) {
        ASSERT_EQ(codes[i], encode(own, weights[i], s)) << weights[i];
        ASSERT_EQ(bits_of_float(numbers[i]), bits_of_float(decode(own, codes[i], s))) << weights[i];
    }
    EXPECT_EQ(codes, codes_of_rounder);
    EXPECT_EQ(bits_of_floats(numbers), bits_of_floats(numbers_of_rounder));
}

TEST(any_grid, takes_grids_of_users) {
    any_grid const any(test::powers_of_two{});
    EXPECT_EQ(any.name(), "");
    EXPECT_FALSE(any.split());
    expect_rounded(test::powers_of_two{}, {0.3F, 0});
    expect_rounded(test::five{}, {0.3F, 0});
    expect_rounded(test::uneven_pair{}, {0.3F, 0});
}

TEST(any_grid, keeps_the_value_of_a_grid) {
    for (float const step : {1.0F, 0.3F, 5.0F}) {
        test::odd_multiples const own{step};
        expect_rounded(own, {0.7F, 0});
        EXPECT_EQ(any_grid(own).numbers().high, 3 * step);
        EXPECT_EQ(any_grid(own).table()[1], -step);
        EXPECT_FALSE(contains_zero(any_grid(own)));
    }
    EXPECT_FALSE(any_grid(test::odd_multiples{1}) == any_grid(test::odd_multiples{2}));
}

TEST(any_grid, takes_affine_grids_of_users) {
    for (float const up : {0.5F, 0.25F}) {
        test::half_up const own{up};
        any_grid const any(own);
        EXPECT_TRUE(any.has_zero());
        EXPECT_TRUE(contains_zero(any));
        EXPECT_EQ(any.lay({-3, 4}), lay_affine(own, {-3, 4}, float_format::f32));
        expect_rounded(own, {1, 0});
        expect_rounded(own, {0.3F, 4});
        expect_rounded(own, {0.25F, 7}); // ties
    }
    any_grid changed(int_grid<4>{});
    changed = any_grid(test::half_up{});
    float const x = 0.5F;
    code c = 0;
    float number = 0;
    changed.round(1, &x, {1, 2}, &c, &number);
    EXPECT_EQ(c, 3); // not half to even
    EXPECT_EQ(number, 1);
}

TEST(any_grid, contains_zero_if_the_grid_does) {
    for (grid_name const& name : all_names()) {
        any_grid const grid = find_grid(name);
        bool const listed = std::ranges::find(grid.table(), 0.0F) != grid.table().end();
        EXPECT_EQ(contains_zero(grid), listed) << name.text();
        EXPECT_EQ(contains_zero(grid), name.text() != "int1sym") << name.text();
    }
}

} // namespace
