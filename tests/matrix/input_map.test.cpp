// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <Eigen/Dense>
#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/matrix/input_map.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_map.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::dense_of;
using test::random_map;
using test::random_matrix;

constexpr index_t features = 48;
constexpr index_t width = 16; // of blocks

/// The largest difference, relative to the largest number that is expected.
template <class A, class B> double distance(A const& found, B const& expected) {
    double const size = expected.size() > 0 ? expected.template cast<double>().cwiseAbs().maxCoeff() : 0;
    return size > 0 ? (found.template cast<double>() - expected.template cast<double>()).cwiseAbs().maxCoeff() / size
                    : 0;
}

template <class Scalar> constexpr double accuracy = std::same_as<Scalar, float> ? 1e-6 : 1e-12;

template <class Scalar> void expect_dense(std::string const& kind, index_t rows) {
    input_map const map = random_map(kind, features, width);
    Eigen::MatrixXd const m = dense_of(map, features);
    basic_matrix<Scalar> const x = random_matrix(rows, features, 1).cast<Scalar>();
    basic_matrix<Scalar> const w = random_matrix(rows, features, 2).cast<Scalar>(); // (out, in)
    basic_matrix<double> const xd = x.template cast<double>();
    basic_matrix<double> const wd = w.template cast<double>();
    double const most = accuracy<Scalar>;
    EXPECT_LE(distance(map.apply<Scalar>(x), basic_matrix<double>(xd * m.transpose())), most) << kind;
    EXPECT_LE(distance(map.of_weights<Scalar>(w), basic_matrix<double>(wd * m.inverse())), most) << kind;
    EXPECT_LE(distance(map.back<Scalar>(w), basic_matrix<double>(wd * m)), most) << kind;
    // What of_weights made becomes the weights again, and the layer computes what it did.
    EXPECT_LE(distance(map.back<Scalar>(map.of_weights<Scalar>(w)), w), 4 * most) << kind; // up to ten steps
    basic_matrix<Scalar> const mapped = map.apply<Scalar>(x);
    basic_matrix<double> const y =
        mapped.template cast<double>() * map.of_weights<Scalar>(w).template cast<double>().transpose();
    EXPECT_LE(distance(y, basic_matrix<double>(xd * wd.transpose())), most) << kind;
}

TEST(input_map, is_the_matrix_of_its_steps) {
    for (std::string const kind : test::kinds_of_maps) {
        for (index_t const rows : {0, 1, 40}) {
            expect_dense<float>(kind, rows);
            expect_dense<double>(kind, rows);
        }
    }
}

TEST(input_map, puts_both_sides_around_a_matrix_that_need_not_be_symmetric) {
    for (std::string const kind : test::kinds_of_maps) {
        input_map const map = random_map(kind, features, width);
        Eigen::MatrixXd const m = dense_of(map, features);
        basic_matrix<double> const a = random_matrix(features, features, 3).cast<double>();
        EXPECT_LE(distance(map.both_sides(a), basic_matrix<double>(m * a * m.transpose())), 1e-12) << kind;
    }
}

TEST(input_map, takes_blocks_of_larger_matrices) {
    matrix const larger = random_matrix(9, features + 11, 4);
    for (std::string const kind : test::kinds_of_maps) {
        input_map const map = random_map(kind, features, width);
        matrix const block = larger.block(2, 5, 6, features);
        EXPECT_EQ(map.apply(larger.block(2, 5, 6, features)), map.apply(block)) << kind;
        EXPECT_EQ(map.of_weights(larger.block(2, 5, 6, features)), map.of_weights(block)) << kind;
        EXPECT_EQ(map.back(larger.block(2, 5, 6, features)), map.back(block)) << kind;
    }
}

TEST(input_map, does_another_after_itself) {
    input_map const first = random_map("pd", features, width, 1);
    input_map const second = random_map("hp", features, width, 5);
    input_map both = first;
    both.then(second);
    EXPECT_EQ(both.steps().size(), 4U);
    EXPECT_LE(
        distance(dense_of(both, features), Eigen::MatrixXd(dense_of(second, features) * dense_of(first, features))),
        1e-12);
    matrix const x = random_matrix(3, features, 1);
    EXPECT_EQ(both.apply(x), second.apply(first.apply(x)));
    EXPECT_EQ(both.of_weights(x), second.of_weights(first.of_weights(x)));
    EXPECT_EQ(both.back(x), first.back(second.back(x)));
    both.then(input_map{});
    EXPECT_EQ(both.steps().size(), 4U);
    input_map twice = first;
    twice.then(twice);
    EXPECT_EQ(twice.apply(x), first.apply(first.apply(x)));
}

TEST(input_map, is_a_value) {
    input_map const map = random_map("pdh", features, width);
    input_map other = map;
    EXPECT_TRUE(other == map);
    other.then(block_hadamard{2}, features);
    EXPECT_FALSE(other == map);
    EXPECT_FALSE(random_map("d", features, width, 1) == random_map("d", features, width, 2));
    EXPECT_TRUE(input_map{}.empty());
    EXPECT_FALSE(map.empty());
}

TEST(input_map, has_an_order_where_it_is_a_permutation_and_nothing_else) {
    std::vector<std::int32_t> const order = test::random_order(features, 2);
    input_map const map(permutation{order}, features);
    ASSERT_NE(map.order(), nullptr);
    EXPECT_EQ(*map.order(), order);
    for (std::string const kind : {"", "d", "h", "pp", "pd", "hp"}) {
        EXPECT_EQ(random_map(kind, features, width).order(), nullptr) << kind;
    }
}

/// Why `step` cannot be done to 4 inputs.
std::string refusal(input_map::step step) {
    input_map map(diagonal{{1, 2, 3, 4}}, 4);
    input_map const before = map;
    std::string const message = failure_message([&] { map.then(std::move(step), 4); });
    EXPECT_EQ(map == before, !message.empty()) << message;
    return message;
}

TEST(input_map, refuses_what_is_no_permutation) {
    EXPECT_EQ(refusal(permutation{{3, 1, 0, 2}}), "");
    constexpr auto largest = std::numeric_limits<std::int32_t>::max();
    for (std::vector<std::int32_t> const& order : {std::vector<std::int32_t>{},
                                                   {0, 1, 2},
                                                   {0, 1, 2, 3, 4},
                                                   {0, 1, 2, 2},
                                                   {0, 1, 2, 4},
                                                   {0, 1, -1, 2},
                                                   {0, 1, 2, largest},
                                                   {0, 1, 2, 3, 3}}) {
        EXPECT_EQ(refusal(permutation{order}), "input map: its order is no permutation of 4 inputs");
    }
}

TEST(input_map, refuses_factors_without_an_inverse) {
    using limits = std::numeric_limits<float>;
    for (float const factor : {-1.0F, limits::min(), limits::max(), -limits::max(), 0x1p-127F}) {
        EXPECT_EQ(refusal(diagonal{{1, factor, 1, 1}}), "") << factor;
    }
    for (float const factor :
         {0.0F, -0.0F, limits::infinity(), -limits::infinity(), limits::quiet_NaN(), limits::denorm_min(), 0x1p-128F}) {
        std::string const message = refusal(diagonal{{1, 1, factor, 1}});
        EXPECT_TRUE(contains(message, "input map: the factor of input 2 is ")) << factor << ' ' << message;
    }
    EXPECT_EQ(refusal(diagonal{{1, 1, 1}}), "input map: has 3 factors for 4 inputs");
    EXPECT_EQ(refusal(diagonal{{1, 1, 1, 1, 1}}), "input map: has 5 factors for 4 inputs");
}

TEST(input_map, refuses_blocks_that_do_not_divide) {
    for (index_t const block : {1, 2, 4}) {
        EXPECT_EQ(refusal(block_hadamard{block}), "") << block;
    }
    for (index_t const block : {0, -1, -2, 3, 8}) {
        EXPECT_EQ(refusal(block_hadamard{block}),
                  "input map: blocks of " + std::to_string(block) + " do not divide 4 inputs, or are no power of two");
    }
    EXPECT_NE(failure_message([] { input_map(block_hadamard{4}, 6); }), "");
}

TEST(input_map, threads_do_not_change_a_bit) {
    matrix const x = random_matrix(100, features, 1);
    basic_matrix<double> const a = random_matrix(features, features, 2).cast<double>();
    for (std::string const kind : test::kinds_of_maps) {
        input_map const map = random_map(kind, features, width);
        for (index_t const count : {1, 2, 3}) {
            thread_team many(count);
            EXPECT_EQ(map.apply(x, many), map.apply(x)) << kind;
            EXPECT_EQ(map.of_weights(x, many), map.of_weights(x)) << kind;
            EXPECT_EQ(map.back(x, many), map.back(x)) << kind;
            EXPECT_EQ(map.both_sides(a, many), map.both_sides(a)) << kind;
        }
    }
}

TEST(input_map, is_for_so_many_inputs) {
    EXPECT_EQ(failure_message([] {
                  input_map(diagonal{{1, 2}}, 2).apply(matrix::Zero(3, 3));
              }),
              "input map: is not for 3 inputs");
    EXPECT_EQ(failure_message([] {
                  input_map(permutation{{1, 0}}, 2).back(matrix::Zero(3, 1));
              }),
              "input map: is not for 1 inputs");
    EXPECT_EQ(failure_message([] { input_map(block_hadamard{4}, 8).of_weights(matrix::Zero(3, 6)); }),
              "input map: is not for 6 inputs");
}

} // namespace
