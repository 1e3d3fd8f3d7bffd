// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include "detent/evidence/hessian.hpp"
#include "nn/random_matrix.hpp"

namespace detent::test {

/// Inputs (token, feature) that depend on each other, of different sizes.
inline matrix correlated_inputs(index_t tokens, index_t features, unsigned seed) {
    matrix const mix = random_matrix(features, features, seed);
    matrix x = random_matrix(tokens, features, seed + 1) * mix / static_cast<float>(features);
    for (index_t j = 0; j < features; ++j) {
        x.col(j) *= 1 + static_cast<float>(j * 7 % 11) / 5;
    }
    return x;
}

/// The Hessian as a dense matrix.
inline Eigen::MatrixXd dense(hessian const& h) {
    Eigen::MatrixXd m(h.features(), h.features());
    for (index_t i = 0; i < m.rows(); ++i) {
        for (index_t j = 0; j < m.cols(); ++j) {
            m(i, j) = h(i, j);
        }
    }
    return m;
}

} // namespace detent::test
