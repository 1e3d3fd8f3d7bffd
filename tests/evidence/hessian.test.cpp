// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/evidence/hessian.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::dense;
using test::random_matrix;

Eigen::MatrixXd reference(matrix const& x) {
    Eigen::MatrixXd const wide = x.cast<double>();
    return 2.0 / static_cast<double>(x.rows()) * wide.transpose() * wide;
}

void expect_near(Eigen::MatrixXd const& a, Eigen::MatrixXd const& b, double tolerance = 1e-5) {
    ASSERT_EQ(a.rows(), b.rows());
    ASSERT_EQ(a.cols(), b.cols());
    EXPECT_LE((a - b).cwiseAbs().maxCoeff(), tolerance * b.cwiseAbs().maxCoeff());
}

TEST(hessian, is_twice_the_mean_of_x_times_x_transposed) {
    for (index_t const features : {1, 5, 128, 129, 300}) {
        for (index_t const tokens : {1, 255, 256, 600}) {
            matrix const x = random_matrix(tokens, features, 3);
            hessian const h = hessian::of(x);
            EXPECT_EQ(h.features(), features);
            EXPECT_EQ(h.tokens(), tokens);
            expect_near(dense(h), reference(x));
            EXPECT_EQ(h.diagonal(), dense(h).diagonal());
        }
    }
}

TEST(hessian, streamed_in_pieces_it_is_the_same) {
    matrix const x = correlated_inputs(700, 37, 1);
    hessian pieces(37);
    for (index_t t = 0; t < 700; t += 123) {
        pieces.add(x.middleRows(t, std::min<index_t>(123, 700 - t)));
    }
    EXPECT_EQ(pieces.tokens(), 700);
    expect_near(dense(pieces), reference(x));
}

TEST(hessian, takes_a_block_of_a_larger_matrix) {
    matrix const x = random_matrix(50, 40, 1);
    expect_near(dense(hessian::of(x.block(3, 5, 30, 20))), reference(x.block(3, 5, 30, 20)));
}

template <class Half> void expect_halves_as_floats() {
    constexpr index_t features = 37;
    matrix x = random_matrix(2500, features, 1);
    std::vector<Half> halves;
    for (float& v : x.reshaped<Eigen::RowMajor>()) {
        halves.push_back(Half{v});
        v = static_cast<float>(halves.back());
    }
    hessian h(features);
    h.add(halves);
    EXPECT_EQ(h.tokens(), 2500);
    expect_near(dense(h), reference(x));
    halves.pop_back();
    EXPECT_THROW(h.add(halves), error);
}

TEST(hessian, takes_inputs_of_16_bits) {
    expect_halves_as_floats<half>();
    expect_halves_as_floats<bfloat16>();
}

TEST(hessian, comes_back_from_its_sum) {
    hessian const h = hessian::of(random_matrix(50, 20, 1));
    basic_matrix<double> sum = h.sum();
    EXPECT_TRUE(sum.isUpperTriangular(0));
    EXPECT_EQ(dense(hessian(sum, 50)), dense(h));
    sum(3, 2) = 1; // below the diagonal: ignored
    EXPECT_EQ(hessian(sum, 50).sum(), h.sum());
    EXPECT_THROW(hessian(sum.topRows(19), 50), error);
    EXPECT_THROW(hessian(sum, -1), error);
    sum(2, 3) = std::numeric_limits<double>::infinity();
    EXPECT_THROW(hessian(sum, 50), error);
}

TEST(hessian, of_nothing_stays_empty) {
    hessian h(200);
    h.add(matrix(0, 200));
    EXPECT_EQ(h.tokens(), 0);
    EXPECT_EQ(h.sum(), basic_matrix<double>::Zero(200, 200));
    EXPECT_THROW(h += hessian(199), error);
}

TEST(hessian, merging_two_is_seeing_all) {
    matrix const x = correlated_inputs(500, 37, 1);
    hessian h = hessian::of(x.topRows(100));
    h += hessian::of(x.bottomRows(400));
    EXPECT_EQ(h.tokens(), 500);
    expect_near(dense(h), reference(x));
    h += hessian(37);
    expect_near(dense(h), reference(x));
}

TEST(hessian, sums_are_wider_than_float) {
    // 2^24 + 1 is no float: the runs are, their sum is not.
    matrix x = matrix::Zero(512, 1);
    x.topRows(256).setConstant(256); // sums to 2^24
    x(256, 0) = 1;
    EXPECT_EQ(hessian::of(x)(0, 0) * 512 / 2, 0x1p24 + 1);
}

TEST(hessian, nothing_seen_is_zero) {
    hessian const h(3);
    EXPECT_EQ(h.tokens(), 0);
    EXPECT_EQ(dense(h), Eigen::MatrixXd::Zero(3, 3));
    EXPECT_EQ(h.quadratic(matrix::Ones(2, 3)), 0);
}

TEST(hessian, quadratic_is_the_mean_squared_output_error) {
    matrix const x = correlated_inputs(300, 29, 1);
    hessian const h = hessian::of(x);
    for (index_t const out : {1, 64, 65, 150}) {
        matrix const d = random_matrix(out, 29, 2);
        double const error = (x.cast<double>() * d.cast<double>().transpose()).squaredNorm() / 300;
        EXPECT_NEAR(h.quadratic(d), error, 1e-6 * error);
        Eigen::MatrixXd const wide = d.cast<double>();
        double const trace = 0.5 * (wide * dense(h) * wide.transpose()).trace();
        EXPECT_NEAR(h.quadratic(d), trace, 1e-12 * trace);
    }
}

TEST(hessian, refuses_another_number_of_features) {
    hessian h(5);
    std::string const message = failure_message([&] { h.add(matrix::Zero(3, 4)); });
    EXPECT_EQ(message, "hessian: expected inputs of 5 features, got 4");
    EXPECT_EQ(h.tokens(), 0);
}

TEST(hessian, threads_do_not_change_a_bit) {
    matrix const x = correlated_inputs(600, 300, 1);
    hessian const serially = hessian::of(x);
    for (index_t const count : {1, 2, 3}) {
        thread_team many(count);
        EXPECT_EQ(dense(hessian::of(x, many)), dense(serially));
        EXPECT_EQ(serially.quadratic(x, many), serially.quadratic(x));
    }
}

TEST(hessian, wrong_shapes_and_inputs_are_named) {
    hessian h = hessian::of(random_matrix(9, 5, 1));
    EXPECT_EQ(failure_message([] { hessian(-1); }), "hessian: its number of features is -1, not 0 or more");
    std::string const inputs = "hessian: cannot be restricted to inputs that it does not have, or that do not ascend";
    for (std::vector<std::int32_t> const& some : {std::vector<std::int32_t>{0, 5}, {-1, 2}, {2, 1}, {2, 2}}) {
        EXPECT_EQ(failure_message([&] { h.restricted_to(some); }), inputs);
    }
    EXPECT_EQ(failure_message([&] { h.quadratic(matrix::Zero(2, 4)); }),
              "hessian: has 5 features, the weights have 4 columns");
    EXPECT_EQ(failure_message([&] { h.replace_hessian(basic_matrix<double>::Zero(4, 4)); }),
              "hessian: is replaced by one of another shape");
    EXPECT_EQ(failure_message([] { hessian(5).replace_hessian(basic_matrix<double>::Zero(5, 5)); }),
              "hessian: has seen no tokens");
}

} // namespace
