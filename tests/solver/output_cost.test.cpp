// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/solver/output_cost.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::random_matrix;

/// d G d^T for random rows d: the rough form's, and the definition's.
std::vector<std::pair<double, double>> rough_and_exact(matrix const& g) {
    matrix const d = random_matrix(50, g.rows(), 9);
    float_vector values;
    matrix work;
    rough_form(g).evaluate(d, values, work);
    std::vector<std::pair<double, double>> both;
    for (index_t i = 0; i < d.rows(); ++i) {
        basic_vector<double> const row = d.row(i).transpose().cast<double>();
        both.emplace_back(values(i), row.dot(g.cast<double>() * row));
    }
    return both;
}

TEST(rough_form, is_exact_where_it_has_as_many_vectors_as_the_rank) {
    matrix const small = correlated_inputs(40, 20, 1);
    matrix const tall = random_matrix(100, 20, 2);
    for (matrix const& g : {matrix(small.transpose() * small), matrix(tall * tall.transpose()),
                            matrix(matrix::Identity(7, 7)), matrix(matrix::Zero(50, 50))}) {
        for (auto const& [rough, exact] : rough_and_exact(g)) {
            EXPECT_NEAR(rough, exact, 1e-4 * exact);
        }
    }
}

TEST(rough_form, is_near_for_a_few_directions_and_a_diagonal) {
    matrix const few = random_matrix(120, 5, 2);
    matrix g = 3 * few * few.transpose();
    for (index_t i = 0; i < g.rows(); ++i) {
        g(i, i) += 1 + static_cast<float>(i % 7);
    }
    for (auto const& [rough, exact] : rough_and_exact(g)) {
        EXPECT_NEAR(rough, exact, 0.1 * exact);
    }
}

TEST(quadratic_form, is_its_definition) {
    for (index_t const n : {1, 13, 300}) {
        matrix const a = random_matrix(n + 5, n, 1);
        matrix g = a.transpose() * a;
        matrix const d = random_matrix(9, n, 2);
        matrix above = g;
        above.triangularView<Eigen::StrictlyLower>().setConstant(-77); // does not matter
        float_vector values;
        matrix work;
        quadratic_form(above).evaluate(d, values, work);
        for (index_t i = 0; i < d.rows(); ++i) {
            basic_vector<double> const row = d.row(i).transpose().cast<double>();
            double const exact = row.dot(g.cast<double>() * row);
            EXPECT_NEAR(values(i), exact, 1e-4 * exact);
        }
    }
}

TEST(form_batch, adds_up_more_rows_than_it_holds) {
    matrix const a = random_matrix(30, 12, 1);
    matrix const g = a.transpose() * a;
    quadratic_form const form(g);
    form_batch<quadratic_form> batch(form);
    matrix const d = random_matrix(1000, 12, 2);
    matrix const l = random_matrix(7, 12, 3);
    double sums[3] = {};
    double expected[3] = {};
    for (index_t i = 0; i < d.rows(); ++i) {
        float_vector::Map(batch.next(l.row(i % 7).data(), sums[i % 3]), 12) = d.row(i).transpose();
        basic_vector<double> const row = d.row(i).transpose().cast<double>();
        expected[i % 3] += row.dot(g.cast<double>() * row) + 2 * row.dot(l.row(i % 7).transpose().cast<double>());
    }
    batch.finish();
    batch.finish(); // adds nothing
    for (int k = 0; k < 3; ++k) {
        EXPECT_NEAR(sums[k], expected[k], 1e-5 * expected[k]);
    }
}

} // namespace
