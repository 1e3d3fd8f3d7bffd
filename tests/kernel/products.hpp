// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/kernel/gemm.hpp"
#include "detent/kernel/gemv.hpp"
#include "detent/kernel/multiply.hpp"
#include "detent/kernel/reference.hpp"
#include "detent/pack/linear.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"

namespace detent::test {

/// Inputs whose rows are further apart than they are long; NaN in between.
struct inputs {
    inputs(index_t tokens, index_t features) : stride(features + 3), x(static_cast<std::size_t>(tokens * stride)) {
        std::mt19937 random(static_cast<unsigned>(tokens + features));
        std::normal_distribution<float> normal;
        for (index_t i = 0; i < std::ssize(x); ++i) {
            x[static_cast<std::size_t>(i)] =
                i % stride < features ? normal(random) : std::numeric_limits<float>::quiet_NaN();
        }
    }
    float const* row(index_t token) const { return x.data() + token * stride; }

    index_t stride;
    std::vector<float> x;
};

/// What a kernel under test is: writes y = x W^T.
using product = std::function<void(packed_view const& w, inputs const& x, index_t tokens, float* y, index_t y_stride)>;

inline void gemv(packed_view const& w, inputs const& x, index_t tokens, float* y, index_t y_stride) {
    with_bits(w.bits,
              [&]<int Bits> { kernel::gemv<Bits>(w, 0, w.shape.rows, x.x.data(), x.stride, tokens, y, y_stride); });
}

inline void gemm(packed_view const& w, inputs const& x, index_t tokens, float* y, index_t y_stride) {
    with_bits(w.bits,
              [&]<int Bits> { kernel::gemm<Bits>(w, 0, w.shape.rows, x.x.data(), x.stride, tokens, y, y_stride); });
}

inline void multiply(packed_view const& w, inputs const& x, index_t tokens, float* y, index_t y_stride) {
    kernel::multiply(w, x.x.data(), x.stride, tokens, y, y_stride);
}

/// y (tokens, out + 2), of which the last two columns are not the product's.
inline std::vector<float> run(product const& multiply, packed_view const& w, inputs const& x, index_t tokens) {
    index_t const stride = w.shape.rows + 2;
    std::vector<float> y(static_cast<std::size_t>(tokens * stride), -7);
    multiply(w, x, tokens, y.data(), stride);
    return y;
}

/// Every output is within the rounding error of a float sum from the reference, and nothing else is written.
inline void expect_product(product const& multiply, packed_matrix const& packed, index_t tokens) {
    packed_view const w = packed.view();
    auto const [rows, cols] = w.shape;
    inputs const x(tokens, cols);
    auto const y = run(multiply, w, x, tokens);
    for (index_t t = 0; t < tokens; ++t) {
        for (index_t r = 0; r < rows + 2; ++r) {
            float const result = y[static_cast<std::size_t>(t * (rows + 2) + r)];
            if (r >= rows) {
                ASSERT_EQ(result, -7);
                continue;
            }
            double size = 0;
            for (index_t k = 0; k < cols; ++k) {
                size += std::abs(double{packed.stored_at(r, k)} * x.row(t)[k]);
            }
            double const bound = 0.5 * static_cast<double>(cols) * std::numeric_limits<float>::epsilon() * size;
            ASSERT_NEAR(result, kernel::reference_dot(w, r, x.row(t)), bound + 3e-7 * size)
                << packed.bits << " bits, " << rows << " x " << cols << ", tile " << packed.tile.rows << " x "
                << packed.tile.cols << ", token " << t << ", row " << r;
        }
    }
}

template <Grid G> packed_matrix random_packed(G const& grid, extents shape, per_tile granularity) {
    return pack(random_solution(grid, shape, granularity.tile(shape), 1));
}

/// The same with weak columns.
template <Grid G>
packed_matrix weak_packed(G const& grid, extents shape, per_tile granularity, index_t count, float_format format) {
    solution s = random_solution(grid, shape, granularity.tile(shape), 1);
    weaken(s, grid, random_columns(shape.cols, count, 3), format);
    return pack(s);
}

/// Rows, the matrix, groups that are no multiple of 8 and that are, and blocks.
inline constexpr per_tile tiles[] = {{1, 0}, {0, 0}, {1, 5}, {1, 37}, {1, 128}, {3, 0}, {2, 50}};

/// `reference_dot` is the sum over the weights that `w` (5, 19) stands for.
inline void expect_reference_sums_weights(packed_matrix const& w) {
    inputs const x(1, 19);
    for (index_t r = 0; r < 5; ++r) {
        double sum = 0;
        for (index_t k = 0; k < 19; ++k) {
            sum += double{w.stored_at(r, k)} * x.row(0)[k];
        }
        EXPECT_NEAR(kernel::reference_dot(w.view(), r, x.row(0)), sum, 1e-12);
    }
}

/// Threads do not change a bit of the products with `w` (150, 1100).
inline void expect_threads_change_nothing(product const& serial, packed_matrix const& w) {
    inputs const x(300, 1100);
    for (index_t const tokens : {1, 7, 300}) {
        auto const serially = run(serial, w.view(), x, tokens);
        for (index_t const count : {2, 3}) {
            thread_team many(count);
            std::vector<float> y(serially.size(), -7);
            kernel::multiply(w.view(), x.x.data(), x.stride, tokens, y.data(), 152, many);
            EXPECT_EQ(y, serially) << tokens << " tokens, " << count << " threads";
        }
    }
}

} // namespace detent::test
