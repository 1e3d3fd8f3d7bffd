// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

quantized_matrix<int_grid<4>, per_group<16>> random_weights(bool reordered, index_t weak = 0) {
    solution s = test::random_solution(int_grid<4>{}, {21, 70}, {1, 16}, 1);
    test::weaken(s, int_grid<4>{}, test::random_columns(70, weak, 3), float_format::f16);
    if (reordered) {
        s.order = test::random_order(70, 2);
    }
    return {int_grid<4>{}, per_group<16>{}, s};
}

/// |y - w x| is within the rounding error of float sums.
void expect_product(Eigen::MatrixXf const& y, matrix const& w, Eigen::MatrixXf const& x) {
    ASSERT_EQ(shape_of(y), (extents{w.rows(), x.cols()}));
    Eigen::MatrixXd const exact = w.cast<double>() * x.cast<double>();
    Eigen::MatrixXd const size = w.cast<double>().cwiseAbs() * x.cast<double>().cwiseAbs();
    EXPECT_TRUE(((y.cast<double>() - exact).array().abs() <= 5e-6 * size.array()).all());
}

TEST(product, is_the_product_with_the_dequantized_weights) {
    for (bool const reordered : {false, true}) {
        auto const w = random_weights(reordered);
        matrix const dense = dequantize(w.packed());
        Eigen::VectorXf const x = random_matrix(70, 1, 3);
        expect_product(w * x, dense, x);
        expect_product(w.packed() * x, dense, x);
        for (index_t const tokens : {0, 1, 5, 40}) {
            Eigen::MatrixXf const batch = random_matrix(70, tokens, 4);
            expect_product(w * batch, dense, batch);
            matrix const rows = batch; // row-major inputs
            expect_product(w * rows, dense, batch);
        }
        Eigen::MatrixXf const larger = random_matrix(90, 9, 5);
        expect_product(w * larger.block(3, 1, 70, 6), dense, larger.block(3, 1, 70, 6));
        expect_product(w * (2 * x), dense, 2 * x);
        static_assert(std::same_as<decltype(w * x), Eigen::VectorXf>);
    }
}

TEST(product, multiply_takes_blocks_of_larger_matrices) {
    for (bool const reordered : {false, true}) {
        auto const w = random_weights(reordered);
        matrix const x = random_matrix(30, 80, 6);
        matrix y = matrix::Constant(30, 40, -7);
        multiply(w.packed(), x.block(2, 5, 20, 70), y.block(4, 3, 20, 21));
        expect_product(y.block(4, 3, 20, 21).transpose(), dequantize(w.packed()), x.block(2, 5, 20, 70).transpose());
        y.block(4, 3, 20, 21).setConstant(-7);
        EXPECT_EQ(y, matrix::Constant(30, 40, -7));
    }
}

TEST(product, weak_columns_follow_the_order) {
    for (bool const reordered : {false, true}) {
        auto const w = random_weights(reordered, 5);
        matrix const dense = dequantize(w.packed());
        for (index_t const tokens : {1, 5, 40}) {
            Eigen::MatrixXf const batch = random_matrix(70, tokens, 4);
            expect_product(w * batch, dense, batch);
        }
    }
}

TEST(multiply_transposed, is_the_product_with_the_dequantized_weights) {
    for (bool const reordered : {false, true}) {
        for (index_t const weak : {0, 5}) {
            auto const w = random_weights(reordered, weak);
            matrix const dense = dequantize(w.packed());
            for (index_t const tokens : {0, 1, 5, 40}) {
                matrix const g = random_matrix(tokens, 21, 4);
                matrix x(tokens, 70);
                multiply_transposed(w.packed(), g, x);
                expect_product(x.transpose(), dense.transpose(), g.transpose());
            }
        }
    }
}

TEST(multiply_transposed, takes_blocks_of_larger_matrices) {
    for (bool const reordered : {false, true}) {
        auto const w = random_weights(reordered, 5);
        matrix const g = random_matrix(30, 40, 6);
        matrix x = matrix::Constant(30, 90, -7);
        multiply_transposed(w.packed(), g.block(2, 5, 20, 21), x.block(4, 3, 20, 70));
        expect_product(x.block(4, 3, 20, 70).transpose(), dequantize(w.packed()).transpose(),
                       g.block(2, 5, 20, 21).transpose());
        x.block(4, 3, 20, 70).setConstant(-7);
        EXPECT_EQ(x, matrix::Constant(30, 90, -7));
    }
}

template <Grid W, Grid A> bool runs_on_integers(int most_shift = 0) {
    auto const w = pack(W{}, test::random_solution(W{}, {3, 40}, {1, 16}, 1));
    return runs_on_integers(w, test::random_activations(A{}, {2, 40}, true, most_shift, 1));
}

TEST(quantized_product, runs_on_integers_where_both_grids_are_small_integers_times_a_power_of_two) {
    EXPECT_TRUE((runs_on_integers<e2m1, e2m1>(3)));
    EXPECT_TRUE((runs_on_integers<fp_grid<3, 0>, fp_grid<3, 0>>(7)));
    EXPECT_TRUE((runs_on_integers<int_grid<4>, int_grid<8>>()));
    EXPECT_TRUE((runs_on_integers<fp_grid<3, 4>, fp_grid<3, 4>>()));
    EXPECT_FALSE((runs_on_integers<fp_grid<3, 4>, fp_grid<3, 4>>(7)));
    EXPECT_FALSE((runs_on_integers<e2m1, e4m3>()));
    EXPECT_FALSE((runs_on_integers<nf4, e2m1>()));
}

/// Whether or not the product runs on integers, in any order and with weak columns; beside y nothing is written.
template <Grid W, Grid A> void expect_quantized_product(int most_shift) {
    for (bool const reordered : {false, true}) {
        for (index_t const weak : {0, 5}) {
            solution s = test::random_solution(W{}, {21, 70}, {1, 16}, 1);
            test::weaken(s, W{}, test::random_columns(70, weak, 3), float_format::f16);
            if (reordered) {
                s.order = test::random_order(70, 2);
            }
            packed_matrix const w = pack(W{}, s);
            for (index_t const tokens : {0, 1, 5, 40}) {
                auto const x = test::random_activations(A{}, {tokens, 70}, tokens != 5, most_shift, 4);
                matrix y = matrix::Constant(tokens + 2, 30, -7);
                multiply(w, x, y.block(1, 3, tokens, 21));
                expect_product(y.block(1, 3, tokens, 21).transpose(), dequantize(w), dequantize(x).transpose());
                y.block(1, 3, tokens, 21).setConstant(-7);
                EXPECT_EQ(y, matrix::Constant(tokens + 2, 30, -7));
            }
        }
    }
}

TEST(quantized_product, is_that_of_the_numbers_that_codes_stand_for) {
    for (int const most_shift : {0, 3}) {
        expect_quantized_product<e2m1, e2m1>(most_shift);
        expect_quantized_product<int_grid<4>, int_grid<8>>(most_shift);
        expect_quantized_product<int_grid<8>, fp_grid<3, 0>>(most_shift);
        expect_quantized_product<e2m1, e4m3>(most_shift);
        expect_quantized_product<nf4, int_grid<8>>(most_shift);
    }
}

#if defined(_OPENMP)
TEST(quantized_product, threads_do_not_change_a_bit) {
    auto const w = pack(e2m1{}, test::random_solution(e2m1{}, {200, 70}, {1, 16}, 1));
    for (index_t const tokens : {1, 300}) {
        auto const x = test::random_activations(int_grid<8>{}, {tokens, 70}, true, 0, 4);
        matrix serially(tokens, 200);
        multiply(w, x, serially);
        for (index_t const count : {1, 2, 3}) {
            threads many(count);
            matrix y(tokens, 200);
            multiply(w, x, y, many);
            EXPECT_EQ(y, serially) << count << " threads";
        }
    }
}

TEST(multiply_transposed, threads_do_not_change_a_bit_in_any_order) {
    for (bool const reordered : {false, true}) {
        auto const w = random_weights(reordered, 5);
        matrix const g = random_matrix(600, 21, 4);
        matrix serially(600, 70);
        multiply_transposed(w.packed(), g, serially);
        for (index_t const count : {1, 2, 3}) {
            threads many(count);
            matrix x(600, 70);
            multiply_transposed(w.packed(), g, x, many);
            EXPECT_EQ(x, serially) << count << " threads";
        }
    }
}
#endif

} // namespace
