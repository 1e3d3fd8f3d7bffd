// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/transposed.hpp"
#include "detent/pack/linear.hpp"
#include "kernel/products.hpp"
#include "matrix/random_weak.hpp"

namespace {

using namespace detent;
using namespace detent::test;

/// y (tokens, in + 2), of which the last two columns are not the product's.
std::vector<float> run_transposed(packed_view const& w, inputs const& g, index_t tokens, executor_ref executor = {}) {
    index_t const stride = w.shape.cols + 2;
    std::vector<float> y(static_cast<std::size_t>(tokens * stride), -7);
    kernel::multiply_transposed(w, g.x.data(), g.stride, tokens, y.data(), stride, executor);
    return y;
}

/// Every element is within the rounding error of a float sum from the sum in double, and nothing else is written.
void expect_transposed(packed_matrix const& w, index_t tokens) {
    auto const [rows, cols] = w.shape();
    inputs const g(tokens, rows);
    auto const y = run_transposed(w.view(), g, tokens);
    for (index_t c = 0; c < cols + 2; ++c) {
        for (index_t t = 0; t < tokens; ++t) {
            float const result = y[static_cast<std::size_t>(t * (cols + 2) + c)];
            if (c >= cols) {
                ASSERT_EQ(result, -7);
                continue;
            }
            double sum = 0;
            double size = 0;
            for (index_t r = 0; r < rows; ++r) {
                double const term = double{g.row(t)[r]} * w.stored_at(r, c);
                sum += term;
                size += std::abs(term);
            }
            double const steps = static_cast<double>(std::min<index_t>(rows, 256) + rows / 256 + 2);
            ASSERT_NEAR(result, sum, steps * std::numeric_limits<float>::epsilon() * size)
                << w.bits << " bits, " << rows << " x " << cols << ", token " << t << ", column " << c;
        }
    }
}

TEST(multiply_transposed, matches_a_sum_in_double_for_every_width_and_tile) {
    for (int bits = 1; bits <= 8; ++bits) {
        for (per_tile const tile : tiles) {
            for (index_t const cols : {1, 7, 8, 130}) {
                with_bits(bits, [&]<int Bits> {
                    expect_transposed(random_packed(int_grid<Bits>{}, {9, cols}, tile), 3);
                    expect_transposed(random_packed(int_grid<Bits, zero::none>{}, {9, cols}, tile), 3);
                });
                ASSERT_FALSE(HasFatalFailure());
            }
        }
    }
}

TEST(multiply_transposed, matches_a_sum_in_double_around_its_blocks) {
    for (index_t const rows : {1, 255, 256, 257, 520}) {
        for (index_t const cols : {255, 256, 257, 520}) {
            expect_transposed(random_packed(int_grid<3>{}, {rows, cols}, {1, 48}), 2);
            ASSERT_FALSE(HasFatalFailure());
        }
    }
    for (index_t const tokens : {1, 511, 512, 513}) {
        expect_transposed(random_packed(e2m1{}, {17, 20}, {1, 16}), tokens);
        ASSERT_FALSE(HasFatalFailure());
    }
}

TEST(multiply_transposed, has_weak_columns) {
    for (float_format const format : all_formats) {
        expect_transposed(weak_packed(int_grid<3>{}, {70, 600}, {1, 64}, 9, format), 5);
        expect_transposed(weak_packed(int_grid<4, zero::none>{}, {300, 33}, {1, 0}, 33, format), 5);
    }
}

TEST(multiply_transposed, an_empty_batch_is_no_error) {
    packed_matrix const w = random_packed(int_grid<4>{}, {3, 8}, {1, 0});
    kernel::multiply_transposed(w.view(), nullptr, 3, 0, nullptr, 8);
}

TEST(multiply_transposed, a_token_gets_the_same_bits_alone_and_in_a_batch) {
    packed_matrix const w = weak_packed(int_grid<3>{}, {300, 270}, {1, 48}, 5, float_format::f16);
    inputs const g(19, 300);
    auto const batch = run_transposed(w.view(), g, 19);
    for (index_t token = 0; token < 19; ++token) {
        std::vector<float> y(270);
        kernel::multiply_transposed(w.view(), g.row(token), g.stride, 1, y.data(), 270);
        for (index_t c = 0; c < 270; ++c) {
            ASSERT_EQ(y[static_cast<std::size_t>(c)], batch[static_cast<std::size_t>(token * 272 + c)]) << token;
        }
    }
}

TEST(multiply_transposed, threads_do_not_change_a_bit) {
    packed_matrix const w = weak_packed(int_grid<4>{}, {300, 1100}, {1, 48}, 9, float_format::bf16);
    inputs const g(600, 300);
    for (index_t const tokens : {1, 7, 600}) {
        auto const serially = run_transposed(w.view(), g, tokens);
        for (index_t const count : {1, 2, 3}) {
            thread_team many(count);
            EXPECT_EQ(run_transposed(w.view(), g, tokens, many), serially) << tokens << ", " << count << " threads";
        }
    }
}

} // namespace
