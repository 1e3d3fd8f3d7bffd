// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "detent/solver/weak_budget.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;

/// Blocks of dimension `d`: q, k, v, o, then up and down (OPT), or gate, up and down (LLaMA).
std::vector<weak_share> opt_block(index_t d) {
    return {{{d, d}}, {{d, d}}, {{d, d}}, {{d, d}}, {{4 * d, d}, 0.25}, {{d, 4 * d}, 0.25}};
}
std::vector<weak_share> llama_block(index_t d, index_t hidden) {
    return {{{d, d}}, {{d, d}}, {{d, d}}, {{d, d}}, {{hidden, d}, 0.375}, {{hidden, d}, 0.375}, {{d, hidden}, 0.375}};
}

double effective_bits(int bits, std::vector<weak_share> const& layers, std::vector<index_t> const& counts) {
    double extra = 0;
    double weights = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
        extra += static_cast<double>(counts[i] * layers[i].shape.rows * (16 - bits));
        weights += static_cast<double>(layers[i].shape.size());
    }
    return bits + extra / weights;
}

struct row {
    double target;
    std::vector<weak_share> layers;
    index_t attention, up, down;
    double effective = 0;
};

TEST(weak_budget, is_that_of_the_published_code) {
    std::vector<row> const rows{{3.01, llama_block(4096, 11008), 6, 2, 6, 3.0107},
                                {3.01, llama_block(5120, 13824), 8, 4, 8, 3.0129},
                                {3.01, llama_block(6656, 17920), 10, 4, 10, 3.0116},
                                {3.01, llama_block(8192, 22016), 12, 4, 12, 3.0107},
                                {3.01, opt_block(768), 2, 0, 2, 3.0141},
                                {3.01, opt_block(2048), 4, 2, 4, 3.0148},
                                {3.01, opt_block(4096), 6, 2, 6, 3.0101},
                                {3.01, opt_block(5120), 8, 2, 8, 3.0102},
                                {3.01, opt_block(7168), 12, 4, 12, 3.0115},
                                {3.01, opt_block(9216), 14, 4, 14, 3.0101},
                                {3.1, llama_block(4096, 11008), 54, 20, 54, 3.0993},
                                {3.1, llama_block(5120, 13824), 68, 26, 68},
                                {3.1, llama_block(6656, 17920), 88, 34, 90},
                                {3.1, llama_block(8192, 22016), 108, 42, 110},
                                {3.1, opt_block(4096), 64, 16, 64, 3.1016},
                                {3.1, opt_block(9216), 142, 36, 142},
                                {4.01, llama_block(4096, 11008), 6, 2, 6, 4.0099},
                                {4.01, opt_block(4096), 8, 2, 8, 4.0117}};
    for (auto const& r : rows) {
        SCOPED_TRACE(testing::Message() << r.target << " bits, dimension " << r.layers[0].shape.cols);
        int const bits = static_cast<int>(r.target);
        auto const counts = weak_budget(bits, r.target, r.layers, weak_rule::published);
        EXPECT_EQ(counts.front(), r.attention);
        EXPECT_EQ(counts[4], r.up);
        EXPECT_EQ(counts.back(), r.down);
        if (r.effective > 0) {
            EXPECT_NEAR(effective_bits(bits, r.layers, counts), r.effective, 5e-5);
        }
        if (r.layers.size() == 6) { // blocks that the formula is made for
            EXPECT_EQ(weak_budget(bits, r.target, r.layers), counts);
        }
    }
}

TEST(weak_budget, meets_the_target_for_any_architecture) {
    // Grouped queries, a wide feed-forward network, and layers that get none.
    std::vector<weak_share> layers = llama_block(8192, 28672);
    layers[1].shape.rows = layers[2].shape.rows = 1024;
    auto const rounding = [&] { // counts are at most 1.5 from what they should be
        std::vector<index_t> const one(layers.size(), 1);
        return 1.5 * (effective_bits(3, layers, one) - 3);
    };
    for (double const target : {3.01, 3.1, 3.5}) {
        EXPECT_NEAR(effective_bits(3, layers, weak_budget(3, target, layers)), target, rounding());
    }
    layers[0].ratio = layers[6].ratio = 0;
    auto const counts = weak_budget(3, 3.1, layers);
    EXPECT_EQ(counts[0], 0);
    EXPECT_EQ(counts[6], 0);
    EXPECT_NEAR(effective_bits(3, layers, counts), 3.1, rounding());
}

TEST(weak_budget, rounds_half_to_even_and_then_up_to_an_even_number) {
    // in r = 2.5 -> 2, 3.5 -> 4, 1.5 -> 2, 0.5 -> 0, 2.6 -> 3 -> 4; without a scale r is (target - bits) / 8.
    auto const count = [](index_t in, double bits) {
        return weak_budget(8, 8 + bits, std::array{weak_share{{64, in}}}).front();
    };
    EXPECT_EQ(count(20, 1), 2);
    EXPECT_EQ(count(28, 1), 4);
    EXPECT_EQ(count(12, 1), 2);
    EXPECT_EQ(count(4, 1), 0);
    EXPECT_EQ(count(26, 0.8), 4);
    EXPECT_EQ(count(26, 0), 0);
}

TEST(weak_budget, complains_of_what_cannot_be) {
    auto const budget = [](int bits, double target) {
        return failure_message([&] { weak_budget(bits, target, std::array{weak_share{{64, 16}}}); });
    };
    EXPECT_EQ(budget(4, 3.1), "weak columns: cannot make 3.100000 bits of codes of 4 and columns of 16");
    EXPECT_EQ(budget(4, 16), "weak columns: cannot make 16.000000 bits of codes of 4 and columns of 16");
    EXPECT_EQ(budget(4, std::nan("")), "weak columns: cannot make nan bits of codes of 4 and columns of 16");
    EXPECT_EQ(budget(4, 15.9), "weak columns: 15.900000 bits would make 16 of 16 inputs weak");
    EXPECT_EQ(budget(4, 6), "");
}

TEST(weak_budget, complains_of_more_columns_than_can_be_counted) {
    double const tiny = std::numeric_limits<double>::denorm_min();
    std::vector<weak_share> const shares{{{64, 64}, tiny}, {{64, 64}, 0}};
    EXPECT_TRUE(contains(failure_message([&] { weak_budget(3, 15.5, shares); }), "would make")) << tiny;
}

TEST(weak_budget, complains_of_ratios_bits_and_shapes) {
    auto const message = [](int bits, weak_share share) {
        return failure_message([&] { weak_budget(bits, 8.5, std::array{share}); });
    };
    EXPECT_EQ(message(3, {{64, 16}, -1}), "weak columns: its ratio is -1.000000, not 0 or more");
    EXPECT_EQ(message(0, {{64, 16}}), "weak columns: its number of bits of a code is 0, not from 1 to 8");
    EXPECT_EQ(message(3, {{64, -16}}), "weak columns: are of a layer of negative shape");
}

} // namespace
