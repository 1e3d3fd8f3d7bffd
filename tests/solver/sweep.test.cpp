// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "detent/solver/sweep.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

/// An upper triangular factor with a diagonal away from zero.
basic_matrix<double> random_factor(index_t n) {
    basic_matrix<double> r = test::random_matrix(n, n, 1).cast<double>().triangularView<Eigen::Upper>();
    r /= std::sqrt(static_cast<double>(n));
    r.diagonal().setConstant(1);
    return r;
}

std::vector<std::int32_t> natural_order(index_t n) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    return order;
}

TEST(column_sweep, rounds_each_weight_with_the_errors_of_earlier_ones) {
    for (index_t const n : {1, 2, 15, 16, 17, 33, 70}) {
        basic_matrix<double> const r = random_factor(n);
        matrix const w = 5 * test::random_matrix(6, n, 2);
        Eigen::MatrixXd t(6, n);
        column_sweep<double> sweep(r);
        std::vector<index_t> visited;
        double const loss = sweep.run(w, natural_order(n),
                                      [](index_t, index_t, matrix const&) { FAIL() << "there are no groups"; },
                                      [&](index_t j, float const* to_round, float* rounded) {
                                          visited.push_back(j);
                                          for (index_t i = 0; i < 6; ++i) {
                                              t(i, j) = to_round[i];
                                              rounded[i] = std::nearbyint(to_round[i]);
                                          }
                                      }).sum();
        double expected_loss = 0;
        Eigen::MatrixXd e(6, n);
        for (index_t j = 0; j < n; ++j) {
            ASSERT_EQ(visited[static_cast<std::size_t>(j)], j);
            Eigen::VectorXd expected = w.col(j).cast<double>();
            for (index_t i = 0; i < j; ++i) {
                expected += e.col(i) * r(i, j) / r(j, j);
            }
            ASSERT_LE((t.col(j) - expected).cwiseAbs().maxCoeff(), 1e-5) << j << " of " << n;
            Eigen::VectorXd const q = t.col(j).array().round();
            e.col(j) = w.col(j).cast<double>() - q;
            expected_loss += 0.5 * (r(j, j) * (expected - q)).squaredNorm();
        }
        EXPECT_NEAR(loss, expected_loss, 1e-9 * expected_loss);
    }
}

TEST(column_sweep, fits_every_group_once_and_before_its_columns) {
    for (index_t const n : {1, 7, 64, 100}) {
        for (index_t const group : {1, 5, 16, 48}) {
            for (index_t const leaf : {1, 16, 64}) {
                basic_matrix<double> const r = random_factor(n);
                matrix const w = matrix::Zero(2, n);
                column_sweep<double> sweep(r);
                sweep.group = group;
                sweep.leaf = leaf;
                index_t fitted = 0;
                sweep.run(
                    w, natural_order(n),
                    [&](index_t begin, index_t end, matrix const& weights) {
                        EXPECT_EQ(begin, fitted);
                        EXPECT_EQ(end, std::min(begin + group, n));
                        EXPECT_EQ(shape_of(weights), (extents{2, end - begin}));
                        fitted = end;
                    },
                    [&](index_t j, float const*, float* rounded) {
                        EXPECT_LT(j, fitted);
                        EXPECT_GE(j, fitted - group);
                        rounded[0] = rounded[1] = 0;
                    });
                EXPECT_EQ(fitted, n);
            }
        }
    }
}

} // namespace
