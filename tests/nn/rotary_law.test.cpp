// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/nn/rotary_law.hpp"

namespace detent {

namespace {

double const pi = std::acos(-1.0);

/// The angle of pair i at position 1, without any law.
double plain(double base, index_t dimensions, index_t i) {
    return 1 / std::pow(base, double(2 * i) / double(dimensions));
}

std::string failure(nn::rotary_law const& law) {
    try {
        nn::rotary_of(law, 1);
    } catch (error const& e) {
        return e.what();
    }
    return "";
}

} // namespace

TEST(rotary_law, plain_and_linear) {
    nn::rotary const plain_one = nn::rotary_of({.base = 500, .dimensions = 12, .interleaved = true}, 100);
    nn::rotary const linear =
        nn::rotary_of({.kind = nn::rotary_kind::linear, .base = 500, .dimensions = 12, .factor = 4}, 100);
    EXPECT_TRUE(plain_one.interleaved());
    EXPECT_EQ(plain_one.factor(), 1);
    EXPECT_EQ(linear.dimensions(), 12);
    for (index_t i = 0; i < 6; ++i) {
        EXPECT_NEAR(plain_one.frequencies()[std::size_t(i)], plain(500, 12, i), 1e-15);
        EXPECT_NEAR(linear.frequencies()[std::size_t(i)], plain(500, 12, i) / 4, 1e-15);
    }
}

TEST(rotary_law, dynamic_stretches_what_is_longer_than_the_context) {
    nn::rotary_law const law{.kind = nn::rotary_kind::dynamic, .dimensions = 16, .factor = 2, .max_positions = 64};
    EXPECT_EQ(nn::rotary_of(law, 64), nn::rotary_of({.dimensions = 16}, 64));
    EXPECT_EQ(nn::rotary_of(law, 1), nn::rotary_of(law, 64));
    nn::rotary const longer = nn::rotary_of(law, 96);
    double const base = 10000 * std::pow(2 * 96.0 / 64 - 1, 16.0 / 14);
    for (index_t i = 0; i < 8; ++i) {
        EXPECT_NEAR(longer.frequencies()[std::size_t(i)], plain(base, 16, i), 1e-15);
    }
}

TEST(rotary_law, llama3_divides_long_waves) {
    nn::rotary_law const law{
        .kind = nn::rotary_kind::llama3, .base = 500000, .dimensions = 128, .factor = 8, .original_positions = 8192};
    nn::rotary const rope = nn::rotary_of(law, 1);
    int kept = 0, divided = 0, between = 0;
    for (index_t i = 0; i < 64; ++i) {
        double const frequency = plain(500000, 128, i), wave = 2 * pi / frequency;
        double expected = frequency;
        if (wave > 8192.0 / 1) {
            expected = frequency / 8;
            ++divided;
        } else if (wave >= 8192.0 / 4) {
            double const smooth = (8192 / wave - 1) / (4 - 1);
            expected = (1 - smooth) * frequency / 8 + smooth * frequency;
            ++between;
        } else {
            ++kept;
        }
        EXPECT_NEAR(rope.frequencies()[std::size_t(i)], expected, 1e-14 * frequency);
    }
    EXPECT_GT(kept, 0);
    EXPECT_GT(divided, 0);
    EXPECT_GT(between, 0);
}

TEST(rotary_law, yarn_ramps_over_pairs) {
    for (bool const truncate : {true, false}) {
        nn::rotary_law const law{.kind = nn::rotary_kind::yarn,
                                 .base = 150000,
                                 .dimensions = 64,
                                 .factor = 32,
                                 .original_positions = 4096,
                                 .truncate = truncate};
        nn::rotary const rope = nn::rotary_of(law, 1);
        EXPECT_NEAR(rope.factor(), 0.1 * std::log(32.0) + 1, 1e-15);
        // Pairs that turn 32 times and once in 4096 positions.
        double low = 64 * std::log(4096 / (32 * 2 * pi)) / (2 * std::log(150000.0));
        double high = 64 * std::log(4096 / (2 * pi)) / (2 * std::log(150000.0));
        low = truncate ? std::floor(low) : low;
        high = truncate ? std::ceil(high) : high;
        ASSERT_GT(low, 1);
        ASSERT_LT(high, 31);
        for (index_t i = 0; i < 32; ++i) {
            double const frequency = plain(150000, 64, i);
            double const ramp = double(i) < low ? 0 : double(i) > high ? 1 : (double(i) - low) / (high - low);
            EXPECT_NEAR(rope.frequencies()[std::size_t(i)], frequency * (1 - ramp) + frequency / 32 * ramp,
                        1e-14 * frequency);
        }
    }
}

TEST(rotary_law, yarn_attention_factors) {
    nn::rotary_law law{.kind = nn::rotary_kind::yarn, .dimensions = 16, .max_positions = 128, .original_positions = 32};
    EXPECT_NEAR(nn::rotary_of(law, 1).factor(), 0.1 * std::log(4.0) + 1, 1e-15); // 128 / 32, as none is given
    law.mscale = 0.7;
    EXPECT_NEAR(nn::rotary_of(law, 1).factor(), 0.1 * std::log(4.0) + 1, 1e-15); // one of the two is not enough
    law.mscale_all_dim = 0.5;
    EXPECT_NEAR(nn::rotary_of(law, 1).factor(), (0.07 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1), 1e-15);
    law.attention_factor = 1.5;
    EXPECT_EQ(nn::rotary_of(law, 1).factor(), 1.5);
    law = {.kind = nn::rotary_kind::yarn, .dimensions = 16, .factor = 0.5, .original_positions = 32};
    EXPECT_EQ(nn::rotary_of(law, 1).factor(), 1);
}

TEST(rotary_law, longrope_has_two_lists) {
    nn::rotary_law law{.kind = nn::rotary_kind::longrope,
                       .dimensions = 6,
                       .max_positions = 128,
                       .original_positions = 32,
                       .short_factor = {1, 1.5, 2},
                       .long_factor = {3, 4, 5}};
    nn::rotary const brief = nn::rotary_of(law, 32), lengthy = nn::rotary_of(law, 33);
    for (index_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(brief.frequencies()[std::size_t(i)], plain(10000, 6, i) / law.short_factor[std::size_t(i)], 1e-15);
        EXPECT_NEAR(lengthy.frequencies()[std::size_t(i)], plain(10000, 6, i) / law.long_factor[std::size_t(i)], 1e-15);
    }
    EXPECT_NEAR(brief.factor(), std::sqrt(1 + std::log(4.0) / std::log(32.0)), 1e-15);
    law.max_positions = 32;
    EXPECT_EQ(nn::rotary_of(law, 1).factor(), 1);
    law.attention_factor = 1.19;
    EXPECT_EQ(nn::rotary_of(law, 1).factor(), 1.19);
}

TEST(rotary_law, proportional_leaves_pairs_of_the_whole_head_alone) {
    nn::rotary const rope =
        nn::rotary_of({.kind = nn::rotary_kind::proportional, .dimensions = 16, .factor = 2, .rotated = 3}, 1);
    for (index_t i = 0; i < 8; ++i) {
        EXPECT_NEAR(rope.frequencies()[std::size_t(i)], i < 3 ? plain(10000, 16, i) / 2 : 0, 1e-15);
    }
}

TEST(rotary_law, frequencies_of_two_lengths_are_compared) {
    using enum nn::rotary_kind;
    nn::rotary_law const two_lists{.kind = nn::rotary_kind::longrope,
                                   .dimensions = 4,
                                   .factor = 2,
                                   .original_positions = 32,
                                   .short_factor = {1, 2},
                                   .long_factor = {3, 5}};
    for (nn::rotary_law const& law :
         {nn::rotary_law{.dimensions = 4}, nn::rotary_law{.kind = linear, .dimensions = 4, .factor = 3},
          nn::rotary_law{.kind = dynamic, .dimensions = 4, .factor = 3, .max_positions = 32}, two_lists}) {
        for (index_t const a : {1, 31, 32, 33, 40}) {
            for (index_t const b : {1, 32, 33, 40}) {
                bool const same = nn::rotary_of(law, a).frequencies() == nn::rotary_of(law, b).frequencies();
                EXPECT_EQ(nn::same_frequencies(law, a, b), same) << static_cast<int>(law.kind) << ' ' << a << ' ' << b;
            }
        }
    }
}

TEST(rotary_law, rotations_that_are_kept_are_those_of_the_law) {
    nn::rotary_law const laws[] = {
        {.dimensions = 8},
        {.base = 500, .dimensions = 8, .interleaved = true},
        {.kind = nn::rotary_kind::dynamic, .dimensions = 8, .factor = 2, .max_positions = 20},
        {.kind = nn::rotary_kind::longrope,
         .dimensions = 8,
         .factor = 2,
         .original_positions = 30,
         .short_factor = {1, 1, 2, 2},
         .long_factor = {3, 3, 4, 4}},
        {.base = 7, .dimensions = 8}};
    matrix const x = matrix::NullaryExpr(90, 16, [](index_t r, index_t c) { return std::sin(float(5 * r + c)); });
    struct span {
        index_t start, length;
    };
    for (span const s : {span{0, 9}, {9, 1}, {10, 1}, {0, 90}, {20, 12}, {19, 1}, {29, 1}, {30, 1}, {80, 1}, {5, 3}}) {
        for (nn::rotary_law const& law : laws) {
            matrix expected = x.topRows(s.length), got = expected;
            nn::rotary_of(law, s.start + s.length).at(s.start, s.length).apply(expected, 8, {.start = s.start});
            nn::rotation_of(law, s.start, s.length)->apply(got, 8, {.start = s.start});
            EXPECT_TRUE(got == expected) << s.start << ' ' << s.length << ' ' << law.base;
        }
    }
    auto const one = nn::rotation_of(laws[4], 81, 1);
    EXPECT_EQ(nn::rotation_of(laws[4], 100, 20), one); // computed ahead
}

TEST(rotary_law, names_the_field_that_is_wrong) {
    using enum nn::rotary_kind;
    EXPECT_EQ(failure({.dimensions = 5}),
              "rope_parameters, field 'partial_rotary_factor': leaves no even number of features to rotate");
    EXPECT_EQ(failure({.base = 0, .dimensions = 4}), "rope_parameters, field 'rope_theta': is not positive");
    EXPECT_EQ(failure({.kind = linear, .dimensions = 4}), "rope_parameters, field 'factor': is missing");
    EXPECT_EQ(failure({.kind = llama3, .dimensions = 4, .factor = 8}),
              "rope_parameters, field 'original_max_position_embeddings': is missing");
    EXPECT_EQ(failure({.kind = longrope, .dimensions = 4, .factor = 8, .original_positions = 8, .short_factor = {1.0}}),
              "rope_parameters, field 'short_factor': has not one entry for each pair of features");
    EXPECT_NE(failure({.kind = dynamic, .dimensions = 4, .factor = 8}).find("max_position_embeddings"),
              std::string::npos);
}

} // namespace detent
