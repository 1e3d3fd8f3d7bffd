// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <random>

#include "detent/core/eigen.hpp"

namespace detent::test {

/// Normal entries; the same on every run.
inline matrix random_matrix(index_t rows, index_t cols, unsigned seed, float scale = 1.0F) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, scale);
    return matrix::NullaryExpr(rows, cols, [&] { return normal(random); });
}

inline float_vector random_vector(index_t size, unsigned seed) { return random_matrix(size, 1, seed); }

} // namespace detent::test
