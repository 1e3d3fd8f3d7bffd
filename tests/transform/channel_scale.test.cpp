// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

#include "detent/nn/linear.hpp"
#include "detent/nn/norm.hpp"
#include "detent/transform/channel_scale.hpp"

namespace detent {
namespace {

matrix random_matrix(index_t rows, index_t cols, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    return matrix::NullaryExpr(rows, cols, [&] { return normal(random); });
}

/// Powers of two from 2^-4 to 2^4.
float_vector powers_of_two(index_t count) {
    return float_vector::NullaryExpr(count,
                                     [](index_t i) { return std::ldexp(1.0F, static_cast<int>(i * 5 % 9) - 4); });
}

/// From 0.1 to 10.
float_vector positive_scales(index_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> exponent(-1, 1);
    return float_vector::NullaryExpr(count, [&] { return std::pow(10.0F, exponent(random)); });
}

TEST(channel_scale, makes_producers_write_scaled_channels) {
    index_t const in = 7, out = 11;
    matrix const x = random_matrix(5, in, 1);
    matrix const w = random_matrix(out, in, 2);
    for (float_vector const& bias : {float_vector{}, float_vector(float_vector::LinSpaced(out, -1, 1))}) {
        float_vector const scales = positive_scales(out, 3);
        matrix scaled_w = w;
        float_vector scaled_bias = bias;
        fold_into_outputs(scales, scaled_w, scaled_bias);
        ASSERT_EQ(scaled_bias.size(), bias.size());
        for (index_t t = 0; t < 5; ++t) {
            for (index_t o = 0; o < out; ++o) {
                double y = bias.size() > 0 ? double(bias(o)) : 0;
                double scaled = bias.size() > 0 ? double(scaled_bias(o)) : 0;
                double size = std::abs(y);
                for (index_t j = 0; j < in; ++j) {
                    y += double(w(o, j)) * x(t, j);
                    scaled += double(scaled_w(o, j)) * x(t, j);
                    size += std::abs(double(w(o, j)) * x(t, j));
                }
                EXPECT_NEAR(scaled, scales(o) * y, 1e-6 * scales(o) * size) << t << ' ' << o;
            }
        }
    }
}

TEST(channel_scale, makes_norms_write_scaled_channels) {
    float_vector const scales = powers_of_two(9);
    matrix const x = random_matrix(4, 9, 4);
    float_vector const weight = random_matrix(9, 1, 5);
    float_vector const bias = random_matrix(9, 1, 6);

    float_vector scaled_weight = weight;
    float_vector none;
    fold_into_norm(scales, scaled_weight, none);
    EXPECT_EQ(none.size(), 0);
    matrix const rms = nn::rms_norm(x, weight, 1e-5F) * scales.asDiagonal();
    EXPECT_EQ(nn::rms_norm(x, scaled_weight, 1e-5F), rms);

    scaled_weight = weight;
    float_vector scaled_bias = bias;
    fold_into_norm(scales, scaled_weight, scaled_bias);
    matrix const layer = nn::layer_norm(x, weight, bias, 1e-5F) * scales.asDiagonal();
    EXPECT_EQ(nn::layer_norm(x, scaled_weight, scaled_bias, 1e-5F), layer);
}

TEST(channel_scale, makes_consumers_read_scaled_channels) {
    matrix const x = random_matrix(5, 12, 7);
    matrix const w = random_matrix(8, 12, 8);
    matrix const expected = nn::linear(x, w);

    // Each product is that of the same numbers but for exponents that cancel, so no rounding changes.
    float_vector const shifts = powers_of_two(12);
    matrix folded = w;
    fold_into_inputs(shifts, folded);
    matrix const shifted = x * shifts.asDiagonal();
    EXPECT_NE(folded, w);
    EXPECT_EQ(nn::linear(shifted, folded), expected);

    float_vector const scales = positive_scales(12, 9);
    folded = w;
    fold_into_inputs(scales, folded);
    matrix const difference = nn::linear((x * scales.asDiagonal()).eval(), folded) - expected;
    EXPECT_LE(difference.cwiseAbs().maxCoeff(), 1e-5F * expected.cwiseAbs().maxCoeff());
}

TEST(channel_scale, folds_into_a_block_of_a_matrix) {
    matrix w = random_matrix(6, 10, 10);
    matrix const before = w;
    fold_into_inputs(float_vector::Constant(4, 2), w.middleCols(3, 4));
    EXPECT_EQ(w.leftCols(3), before.leftCols(3));
    EXPECT_EQ(w.middleCols(3, 4), before.middleCols(3, 4) / 2);
    EXPECT_EQ(w.rightCols(3), before.rightCols(3));
}

TEST(channel_scale, of_query_heads_is_the_smallest_of_their_group) {
    nn::attention_heads const heads{.heads = 6, .kv_heads = 2, .head_dim = 2};
    float_vector scales(12);
    scales << 4, 8, 2, 16, 8, 1, /* the second group */ 1, 1, 2, 0.5F, 4, 4;
    float_vector shared(12);
    shared << 2, 1, 2, 1, 2, 1, /* the second group */ 1, 0.5F, 1, 0.5F, 1, 0.5F;
    EXPECT_EQ(shared_by_heads(scales, heads), shared);
    EXPECT_EQ(shared_by_heads(shared, heads), shared);
    float_vector values(4);
    values << 2, 1, 1, 0.5F;
    EXPECT_EQ(value_scales(shared, heads), values);

    nn::attention_heads const own{.heads = 6, .kv_heads = 6, .head_dim = 2};
    EXPECT_EQ(shared_by_heads(scales, own), scales);
    EXPECT_EQ(value_scales(scales, own), scales);
}

std::string complaint(float_vector const& scales, index_t channels) {
    try {
        check_channel_scales("scales of 'norm'", scales, channels);
    } catch (error const& e) {
        EXPECT_EQ(e.subject(), "scales of 'norm'");
        return e.what();
    }
    return {};
}

TEST(channel_scale, must_be_positive_and_as_many_as_channels) {
    EXPECT_EQ(complaint(positive_scales(5, 1), 5), "");
    EXPECT_NE(complaint(positive_scales(4, 1), 5).find("there are 4 for 5 channels"), std::string::npos);
    float const infinity = std::numeric_limits<float>::infinity();
    for (float const bad : {0.0F, -1.0F, infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), 1e30F, 1e-30F}) {
        float_vector scales = float_vector::Ones(5);
        scales(3) = bad;
        EXPECT_NE(complaint(scales, 5).find("channel 3"), std::string::npos) << bad;
    }
    for (float const edge : {0x1p-64F, 0x1p64F}) {
        EXPECT_EQ(complaint(float_vector::Constant(2, edge), 2), "");
    }
}

} // namespace
} // namespace detent
