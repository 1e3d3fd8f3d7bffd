// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/evidence/factor.hpp"
#include "io/failure_message.hpp"
#include "solver/correlated_inputs.hpp"

namespace {

using namespace detent;
using test::correlated_inputs;
using test::dense;

/// R is upper triangular and R R^T is the damped Hessian in the order of the sweep.
void expect_factor(hessian_factor const& f, hessian const& h) {
    ASSERT_EQ(f.r.rows(), h.features());
    EXPECT_TRUE(f.r.isUpperTriangular(0));
    Eigen::MatrixXd damped = dense(h);
    for (index_t j = 0; j < h.features(); ++j) {
        EXPECT_EQ(f.dead[static_cast<std::size_t>(j)], h(j, j) == 0);
        if (h(j, j) == 0) {
            damped(j, j) = 1;
        }
    }
    damped.diagonal().array() += f.damping * damped.diagonal().mean();
    Eigen::MatrixXd const ordered = damped(f.order, f.order);
    EXPECT_LE((f.r * f.r.transpose() - ordered).cwiseAbs().maxCoeff(), 1e-13 * ordered.cwiseAbs().maxCoeff());
}

TEST(factor, r_times_its_transpose_is_the_damped_hessian) {
    for (index_t const features : {1, 2, 33, 130}) {
        hessian const h = hessian::of(correlated_inputs(3 * features, features, 1));
        for (bool const by_activation : {false, true}) {
            hessian_factor const f = factor(h, {0.01, by_activation});
            expect_factor(f, h);
            EXPECT_EQ(f.damping, 0.01);
            EXPECT_EQ(f.damping_raised, 0);
        }
    }
}

TEST(factor, orders_by_descending_activation) {
    matrix x = matrix::Zero(8, 6);
    float const sizes[] = {2, 5, 0, 5, 1, 7};
    for (index_t j = 0; j < 6; ++j) {
        x(j, j) = sizes[j];
    }
    EXPECT_EQ(factor(hessian::of(x), {0.01, true}).order, (std::vector<std::int32_t>{5, 1, 3, 0, 4, 2}));
    EXPECT_EQ(factor(hessian::of(x), {0.01, false}).order, (std::vector<std::int32_t>{0, 1, 2, 3, 4, 5}));
}

TEST(factor, dead_inputs_get_a_diagonal_of_one) {
    matrix x = correlated_inputs(200, 20, 1);
    x.col(0).setZero();
    x.col(13).setZero();
    hessian const h = hessian::of(x);
    for (bool const by_activation : {false, true}) {
        hessian_factor const f = factor(h, {0.01, by_activation});
        EXPECT_EQ(std::ranges::count(f.dead, true), 2);
        expect_factor(f, h);
    }
}

TEST(factor, raises_the_damping_of_a_singular_hessian) {
    // Two inputs that are always equal: H = 4 everywhere, exactly singular.
    matrix const x = matrix::Constant(3, 2, 2).cwiseProduct((matrix(3, 2) << 1, 1, 0, 0, 1, 1).finished());
    matrix const even = x(std::vector{0, 1}, Eigen::all);
    hessian const h = hessian::of(even);
    ASSERT_EQ(h(0, 1), 4);
    hessian_factor const f = factor(h, {0, false});
    EXPECT_EQ(f.damping, 1e-3);
    EXPECT_EQ(f.damping_raised, 1);
    expect_factor(f, h);
}

TEST(factor, raises_the_damping_until_it_suffices) {
    // Of rank 10, and indefinite by the rounding of float products.
    hessian const h = hessian::of(correlated_inputs(10, 60, 1));
    hessian_factor const f = factor(h, {1e-14, true});
    EXPECT_GE(f.damping_raised, 1);
    EXPECT_LE(f.damping, 0.1);
    expect_factor(f, h);
}

TEST(factor, threads_do_not_change_a_bit) {
    hessian const h = hessian::of(correlated_inputs(500, 333, 1)); // three blocks
    hessian_factor const serially = factor(h, {0.01, true});
    expect_factor(serially, h);
    for (index_t const count : {2, 3}) {
        thread_team many(count);
        EXPECT_EQ(factor(h, {0.01, true}, many).r, serially.r);
    }
}

TEST(factor, gives_up_where_no_damping_can_suffice) {
    basic_matrix<double> indefinite = basic_matrix<double>::Constant(5, 5, 1e6);
    indefinite.diagonal().setOnes();
    hessian const h(indefinite, 2);
    hessian_factor const f = factor(h, {.or_rtn = true});
    EXPECT_EQ(f.r.size(), 0);
    EXPECT_EQ(f.failure, "the Hessian could not be factored");
    EXPECT_TRUE(failure_message([&] { factor(h); }).starts_with("hessian: could not be factored"));
}

TEST(factor, needs_inputs_damping_and_an_order) {
    hessian const h = hessian::of(correlated_inputs(100, 5, 1));
    auto const message = [&](double damping) { return failure_message([&] { factor(h, {damping, false}); }); };
    EXPECT_EQ(message(-5), "hessian: its damping is -5.000000, not finite and 0 or more");
    EXPECT_NE(message(std::numeric_limits<double>::infinity()), "");
    EXPECT_NE(message(std::numeric_limits<double>::quiet_NaN()), "");
    EXPECT_EQ(message(0), "");
    EXPECT_TRUE(failure_message([] { factor(hessian(5)); }).starts_with("hessian: has seen no tokens"));
    EXPECT_EQ(factor(hessian(5), {.or_rtn = true}).failure, "no input was ever seen");
    std::string const no_order = "hessian: is to be factored in an order that does not name each input once";
    for (std::vector<std::int32_t> const& order : {std::vector<std::int32_t>{0, 1, 2, 3},
                                                   {0, 1, 2, 3, 3},
                                                   {0, 1, 2, 3, 5},
                                                   {0, 1, 2, -1, 4},
                                                   {0, 1, 2, 3, 4, 4}}) {
        EXPECT_EQ(failure_message([&] { factor(h, {}, order); }), no_order);
    }
    EXPECT_EQ(failure_message([&] { factor(h, {}, {4, 2, 0, 1, 3}); }), "");
}

TEST(factor, an_input_that_was_not_finite_is_named) {
    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30F}) {
        matrix x = correlated_inputs(100, 20, 1);
        x(50, 7) = bad;
        EXPECT_EQ(failure_message([&] { factor(hessian::of(x), {0.01, false}); }), "hessian: input 7 was not finite");
    }
}

} // namespace
