// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/quantized_linear.hpp"
#include "detent/quantizer/stored_matrix.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "detent/scale/default_range.hpp"
#include "detent/scale/mse.hpp"
#include "detent/solver/problem.hpp"
#include "detent/solver/rtn.hpp"
#include "io/failure_message.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_map.hpp"
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
        s.map = input_map(permutation{test::random_order(70, 2)}, 70);
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

TEST(product, shapes_that_do_not_fit_are_named) {
    auto const w = random_weights(false); // (21, 70)
    std::string const features = "inputs: have 69 features, the weights have 70 columns";
    Eigen::VectorXf const short_x = random_matrix(69, 1, 3);
    Eigen::MatrixXf const columns = random_matrix(69, 4, 3);
    EXPECT_EQ(failure_message([&] { static_cast<void>(w * short_x); }), features);
    EXPECT_EQ(failure_message([&] { static_cast<void>(w.packed() * columns); }), features);
    matrix const x = random_matrix(4, 70, 3);
    matrix const narrow = random_matrix(4, 69, 3);
    auto const complains = [&](matrix const& inputs, extents shape) {
        matrix y(shape.rows, shape.cols);
        std::string const typed = failure_message([&] { multiply(w, inputs, y); });
        EXPECT_EQ(failure_message([&] { multiply(w.packed(), inputs, y); }), typed);
        EXPECT_EQ(failure_message([&] { multiply(w, inputs, y, {}, input_format::int8); }), typed);
        activation_quantizer const int8(any_grid(int_grid<8, zero::none>{}));
        EXPECT_EQ(failure_message([&] { multiply(w, int8, inputs, y); }), typed);
        EXPECT_EQ(failure_message([&] { multiply(w, int8.quantize(inputs), y); }), typed);
        EXPECT_EQ(
            failure_message([&] { multiply(stored_matrix(dequantize(w.packed()), float_format::f16), inputs, y); }),
            typed);
        matrix back = inputs;
        EXPECT_EQ(failure_message([&] { multiply_transposed(w, y, back); }), typed);
        return typed;
    };
    EXPECT_EQ(complains(narrow, {4, 21}), features);
    EXPECT_EQ(complains(x, {4, 20}), "outputs: are 4 x 20, not 4 x 21");
    EXPECT_EQ(complains(x, {3, 21}), "outputs: are 3 x 21, not 4 x 21");
    EXPECT_EQ(complains(x, {4, 21}), "");
    EXPECT_EQ(complains(matrix(0, 70), {0, 21}), "") << "no tokens are fine";
}

TEST(product, of_nothing_is_zero) {
    packed_matrix const nothing;
    EXPECT_EQ((nothing * Eigen::VectorXf()).size(), 0);
    packed_matrix without_inputs;
    without_inputs.extent = {3, 0};
    EXPECT_TRUE((without_inputs * Eigen::VectorXf()).isZero());
}

TEST(product, matrices_that_are_not_whole_are_named) {
    matrix const x = random_matrix(4, 70, 3);
    auto const message = [&](auto const& harm) {
        packed_matrix w = random_weights(false, 2).packed();
        harm(w);
        matrix y(4, w.shape().rows);
        return failure_message([&] { multiply(w, x, y); });
    };
    EXPECT_EQ(message([](packed_matrix&) {}), "");
    EXPECT_EQ(message([](packed_matrix& w) { w.bits = 9; }), "packed matrix: has not 2^bits numbers");
    EXPECT_EQ(message([](packed_matrix& w) { w.table.pop_back(); }), "packed matrix: has not 2^bits numbers");
    EXPECT_EQ(message([](packed_matrix& w) { w.tile.cols = 0; }), "packed matrix: has not one scale for each tile");
    EXPECT_EQ(message([](packed_matrix& w) { w.scales.scales.pop_back(); }),
              "packed matrix: has not one scale for each tile");
    EXPECT_EQ(message([](packed_matrix& w) { w.extent.rows = 22; }), "packed matrix: has not one scale for each tile");
    EXPECT_EQ(message([](packed_matrix& w) { w.codes = buffer(100); }), "packed matrix: has too few codes");
    EXPECT_EQ(message([](packed_matrix& w) {
                  w.weak = weak_columns({3, 70}, 21, float_format::f16);
              }),
              "packed matrix: has weak columns of another shape");
    EXPECT_EQ(message([](packed_matrix& w) { w.map = input_map(permutation{test::random_order(60, 2)}, 60); }),
              "input map: is not for 70 inputs");
    activation_quantizer const int8(any_grid(int_grid<8, zero::none>{}));
    quantized_activations q = int8.quantize(x);
    matrix y(4, 21);
    q.scales.pop_back();
    EXPECT_EQ(failure_message([&] { multiply(random_weights(false), q, y); }),
              "activations: have not one scale for each group");
    q.codes.pop_back();
    EXPECT_EQ(failure_message([&] { multiply(random_weights(false), q, y); }),
              "activations: have not one code for each number");
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
    auto const w = pack(test::random_solution(W{}, {3, 40}, {1, 16}, 1));
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

/// Whether or not the product runs on integers, with a map, which codes are behind, and with weak columns; beside y
/// nothing is written.
template <Grid W, Grid A> void expect_quantized_product(int most_shift) {
    for (bool const reordered : {false, true}) {
        for (index_t const weak : {0, 5}) {
            solution s = test::random_solution(W{}, {21, 70}, {1, 16}, 1);
            test::weaken(s, W{}, test::random_columns(70, weak, 3), float_format::f16);
            if (reordered) {
                s.map = input_map(permutation{test::random_order(70, 2)}, 70);
            }
            packed_matrix const w = pack(s);
            matrix const stored = w.map.of_weights(dequantize(w));
            for (index_t const tokens : {0, 1, 5, 40}) {
                auto const x = test::random_activations(A{}, {tokens, 70}, tokens != 5, most_shift, 4);
                matrix y = matrix::Constant(tokens + 2, 30, -7);
                multiply(w, x, y.block(1, 3, tokens, 21));
                expect_product(y.block(1, 3, tokens, 21).transpose(), stored, dequantize(x).transpose());
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

/// Rounded weights (37, 300), in tiles of one row.
template <Grid G> packed_matrix rounded_weights(G const& grid, index_t width, scale_format format, index_t weak = 0) {
    matrix const w = random_matrix(37, 300, 5); // (out, in)
    problem_of const p{grid, per_tile{1, width}, default_range<G>{}, with_unit(grid, w, format)};
    solution s = rtn{}.solve(w, {}, p, executor_ref{});
    test::weaken(s, grid, test::random_columns(300, weak, 3), float_format::f16);
    return pack(s);
}

/// y (token, out) code by code in double, and the sum of the sizes of all terms.
void expect_code_by_code(packed_matrix const& w, quantized_activations const& x, matrix const& y) {
    for (index_t t = 0; t < y.rows(); ++t) {
        for (index_t r = 0; r < y.cols(); ++r) {
            double sum = 0;
            double size = 0;
            for (index_t k = 0; k < x.shape.cols; ++k) {
                tile_scale const s = w.scales.at(r / w.tile.rows, k / w.tile.cols);
                tile_scale const a = x.scale_of(t, k);
                code const c = x.codes[static_cast<std::size_t>(t * x.shape.cols + k)];
                index_t const weak = w.weak.find(k);
                double const weight = (double{w.table[w.code_at(r, k)]} - s.zero) * s.scale;
                double const product =
                    (weak >= 0 ? w.weak.at(weak, r) : weight) * (double{x.table[c]} - a.zero) * a.scale;
                sum += product;
                size += std::abs(product);
            }
            ASSERT_NEAR(y(t, r), sum, 5e-6 * size) << "token " << t << ", row " << r;
        }
    }
}

/// Activations rounded in groups, dynamic and with the static scales that the first token had.
template <Grid A>
void expect_products_of_groups(std::vector<packed_matrix> const& all, A const& grid, scale_kind kind) {
    matrix const x = 3 * random_matrix(40, 300, 6); // (token, in)
    for (index_t const width : {0, 16, 32, 128}) {
        activation_quantizer const dynamic(any_grid(grid), {.width = width, .kind = kind});
        activation_quantizer const fixed(any_grid(grid),
                                         {.width = width, .fixed = dynamic.quantize(x.topRows(1)).scales});
        for (packed_matrix const& w : all) {
            for (index_t const tokens : {1, 3, 17, 40}) {
                for (activation_quantizer const& input : {dynamic, fixed}) {
                    matrix y(tokens, 37);
                    multiply(w, input, x.topRows(tokens), y);
                    expect_code_by_code(w, input.quantize(x.topRows(tokens)), y);
                    ASSERT_FALSE(testing::Test::HasFailure())
                        << tokens << " tokens, groups of " << width << ", tiles of " << w.tile.cols << ", "
                        << w.weak.count() << " weak";
                }
            }
        }
    }
}

TEST(quantized_product, has_scales_for_groups_on_both_sides) {
    std::vector<packed_matrix> all;
    for (index_t const width : {32, 128, 0}) {
        all.push_back(rounded_weights(int_grid<4>{}, width, float_format::f16));
    }
    all.push_back(rounded_weights(e2m1{}, 32, scale_kind::e8m0));
    all.push_back(rounded_weights(e2m1{}, 16, scale_kind::ue4m3));
    all.push_back(rounded_weights(int_grid<4>{}, 32, float_format::f16, 5));
    expect_products_of_groups(all, int_grid<8, zero::none>{}, scale_kind::f32);
    expect_products_of_groups(all, int_grid<8>{}, scale_kind::f32);
    expect_products_of_groups(all, int_grid<4>{}, scale_kind::f32);
    expect_products_of_groups(all, e2m1{}, scale_kind::e8m0);
    expect_products_of_groups(all, e2m1{}, scale_kind::ue4m3);
    expect_products_of_groups(all, e4m3{}, scale_kind::e8m0);
}

/// Weights (21, 96) with this map, packed in groups, with weak columns or without.
template <Grid G> quantized_matrix<G, per_group<32>> mapped_weights(std::string const& kind, index_t weak) {
    solution s = test::random_solution(G{}, {21, 96}, {1, 32}, 1);
    test::weaken(s, G{}, test::random_columns(96, weak, 3), float_format::f16);
    s.map = test::random_map(kind, 96, 16);
    return {G{}, per_group<32>{}, s};
}

/// The same codes for mapped inputs.
packed_matrix without_map(packed_matrix w) {
    w.map = {};
    return w;
}

/// `f` with weights that have every kind of map, with and without weak columns, and a number of tokens.
template <Grid G, class F> void for_mapped(F const& f) {
    for (std::string const kind : test::kinds_of_maps) {
        for (index_t const weak : {0, 5}) {
            auto const w = mapped_weights<G>(kind, weak);
            for (index_t const tokens : {0, 1, 3, 40}) {
                f(w, tokens);
                ASSERT_FALSE(testing::Test::HasFailure())
                    << "map '" << kind << "', " << weak << " weak columns, " << tokens << " tokens";
            }
        }
    }
}

TEST(mapped_product, is_that_of_mapped_inputs_and_the_packed_codes) {
    for_mapped<int_grid<4>>([](auto const& w, index_t tokens) {
        packed_matrix const stored = without_map(w.packed());
        matrix const x = random_matrix(tokens, 96, 4);
        matrix const mapped = w.packed().map.apply(x);
        matrix y(tokens, 21);
        matrix expected(tokens, 21);
        for (input_format const format : {input_format::f32, input_format::bf16, input_format::int8}) {
            multiply(stored, mapped, expected, {}, format);
            multiply(w.packed(), x, y, {}, format);
            EXPECT_EQ(y, expected);
            multiply(w, x, y, {}, format);
            EXPECT_EQ(y, expected) << "typed";
        }
        multiply(stored, mapped, expected);
        multiply(w, x, y);
        EXPECT_EQ(y, expected) << "typed";
        EXPECT_EQ(matrix((w.packed() * x.transpose()).transpose()), expected);
        EXPECT_EQ(matrix((w * x.transpose()).transpose()), expected) << "typed";
    });
}

TEST(mapped_product, rounds_inputs_after_the_map) {
    activation_quantizer const input(any_grid(int_grid<8>{}), {.width = 32});
    for_mapped<int_grid<4>>([&](auto const& w, index_t tokens) {
        packed_matrix const stored = without_map(w.packed());
        matrix const x = random_matrix(tokens, 96, 4);
        matrix y(tokens, 21);
        matrix expected(tokens, 21);
        multiply(stored, input.quantize(w.packed().map.apply(x)), expected);
        multiply(w.packed(), input, x, y);
        EXPECT_EQ(y, expected);
        multiply(w, input, x, y);
        EXPECT_EQ(y, expected) << "typed";
        EXPECT_EQ((quantized_linear(w, input)(x)), expected);
    });
}

/// The dense weights (out, in) in double: the numbers in storage times the matrix of the map.
Eigen::MatrixXd dense_weights(packed_matrix const& w) {
    Eigen::MatrixXd stored(w.shape().rows, w.shape().cols);
    for (index_t row = 0; row < stored.rows(); ++row) {
        for (index_t col = 0; col < stored.cols(); ++col) {
            stored(row, col) = static_cast<double>(w.stored_at(row, col));
        }
    }
    return stored * test::dense_of(w.map, w.shape().cols);
}

/// Two matrices differ by the rounding of floats.
void expect_near(matrix const& found, Eigen::MatrixXd const& expected) {
    ASSERT_EQ(shape_of(found), shape_of(expected));
    double const size = expected.size() > 0 ? expected.cwiseAbs().maxCoeff() : 0;
    EXPECT_TRUE(((found.cast<double>() - expected).array().abs() <= 5e-6 * size).all());
}

TEST(mapped_product, is_that_of_the_dense_layer) {
    for_mapped<e2m1>([](auto const& w, index_t tokens) {
        Eigen::MatrixXd const dense = dense_weights(w.packed()); // (out, in)
        expect_near(dequantize(w.packed()), dense);
        matrix const x = random_matrix(tokens, 96, 4);
        matrix y = matrix::Constant(tokens + 2, 30, -7);
        multiply(w.packed(), x, y.block(1, 3, tokens, 21));
        expect_near(y.block(1, 3, tokens, 21), x.cast<double>() * dense.transpose());
        y.block(1, 3, tokens, 21).setConstant(-7);
        EXPECT_EQ(y, matrix::Constant(tokens + 2, 30, -7));
        matrix const g = random_matrix(tokens, 21, 5);
        matrix back = matrix::Constant(tokens + 2, 100, -7);
        multiply_transposed(w.packed(), g, back.block(1, 3, tokens, 96));
        expect_near(back.block(1, 3, tokens, 96), g.cast<double>() * dense);
        matrix typed(tokens, 96);
        multiply_transposed(w, g, typed);
        EXPECT_EQ(typed, back.block(1, 3, tokens, 96));
        back.block(1, 3, tokens, 96).setConstant(-7);
        EXPECT_EQ(back, matrix::Constant(tokens + 2, 100, -7));
    });
}

TEST(mapped_product, single_weights_are_those_of_the_dense_layer) {
    for (std::string const kind : test::kinds_of_maps) {
        auto const w = mapped_weights<int_grid<4>>(kind, 5);
        matrix const dense = dequantize(w.packed());
        for (index_t const row : {0, 7, 20}) {
            EXPECT_EQ(dequantize_row(w.packed(), row), dense.row(row)) << kind;
            for (index_t const col : {0, 31, 95}) {
                EXPECT_EQ(w.at(row, col), dense(row, col)) << kind;
            }
        }
        EXPECT_EQ(dequantize_rows(w.packed(), 3, 9), dense.middleRows(3, 6)) << kind;
    }
}

TEST(mapped_product, threads_do_not_change_a_bit) {
    activation_quantizer const input(any_grid(int_grid<8>{}), {.width = 32});
    thread_team two(2);
    for_mapped<int_grid<4>>([&](auto const& w, index_t tokens) {
        matrix const x = random_matrix(tokens, 96, 4);
        matrix const g = random_matrix(tokens, 21, 5);
        auto const all = [&](executor_ref executor) {
            std::array<matrix, 3> found{matrix(tokens, 21), matrix(tokens, 21), matrix(tokens, 96)};
            multiply(w, x, found[0], executor);
            multiply(w, input, x, found[1], executor);
            multiply_transposed(w, g, found[2], executor);
            return found;
        };
        EXPECT_EQ(all(two), all({}));
    });
}

TEST(quantized_product, threads_do_not_change_a_bit) {
    auto const w = pack(test::random_solution(e2m1{}, {200, 70}, {1, 16}, 1));
    for (index_t const tokens : {1, 300}) {
        auto const x = test::random_activations(int_grid<8>{}, {tokens, 70}, true, 0, 4);
        matrix serially(tokens, 200);
        multiply(w, x, serially);
        for (index_t const count : {1, 2, 3}) {
            thread_team many(count);
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
            thread_team many(count);
            matrix x(600, 70);
            multiply_transposed(w.packed(), g, x, many);
            EXPECT_EQ(x, serially) << count << " threads";
        }
    }
}

/// Matrices of one grid, of another, with weak columns and with a map.
std::vector<packed_matrix> matrices_of_one_input() {
    auto const of = [](auto const& grid, index_t rows, index_t weak, unsigned seed) {
        solution s = test::random_solution(grid, {rows, 300}, {1, 64}, seed);
        test::weaken(s, grid, test::random_columns(300, weak, 3), float_format::f16);
        return pack(s);
    };
    std::vector<packed_matrix> all{
        of(int_grid<4>{}, 67, 0, 1), of(int_grid<4>{}, 67, 0, 2), of(int_grid<4>{}, 21, 0, 3), of(e2m1{}, 9, 0, 4),
        of(e4m3{}, 9, 0, 5),         of(int_grid<4>{}, 21, 4, 6), of(int_grid<4>{}, 21, 4, 7)};
    return all;
}

TEST(quantized_product, several_in_one_call_have_the_bits_of_each_alone) {
    auto const all = matrices_of_one_input();
    for (index_t const tokens : {1, 3, 20, 40}) {
        for (bool const in_groups : {false, true}) {
            auto const x = test::random_activations(int_grid<8>{}, {tokens, 300}, true, 0, 2, in_groups ? 32 : 0);
            std::vector<matrix> y;
            std::vector<matrix> alone;
            std::vector<packed_product> products;
            matrix const bias = random_matrix(1, 67, 3);
            for (packed_matrix const& w : all) {
                y.emplace_back(tokens, w.shape().rows);
                alone.emplace_back(tokens, w.shape().rows);
            }
            for (std::size_t i = 0; i < all.size(); ++i) {
                epilogue const gated{bias.data(), epilogue_function::silu};
                auto const after = [&](std::vector<matrix> const& m) {
                    epilogue e = i < 2 ? gated : epilogue{};
                    e.times = i == 1 ? m[0].data() : nullptr;
                    e.times_stride = 67;
                    return e;
                };
                products.emplace_back(all[i], y[i], after(y));
                multiply(all[i], x, alone[i], after(alone));
            }
            thread_team two(2);
            multiply(products, x, two);
            for (std::size_t i = 0; i < all.size(); ++i) {
                EXPECT_EQ(y[i], alone[i]) << tokens << " tokens, matrix " << i;
            }
        }
    }
}

TEST(quantized_product, epilogues_follow_the_sums) {
    packed_matrix const w = matrices_of_one_input()[0];
    matrix const x = random_matrix(5, 300, 2);
    activation_quantizer const input(any_grid(int_grid<8>{}));
    matrix const plus = random_matrix(5, 67, 3);
    matrix const bias = random_matrix(1, 67, 4);
    matrix sums(5, 67);
    multiply(w, input, x, sums);
    matrix y = plus;
    multiply(w, input, x, y,
             {.bias = bias.data(), .function = epilogue_function::relu, .plus = y.data(), .plus_stride = 67});
    EXPECT_EQ(y, ((sums.rowwise() + bias.row(0)).cwiseMax(0) + plus).eval());
}

TEST(quantized_product, inputs_that_several_read_are_mapped_and_rounded_as_for_each) {
    auto all = matrices_of_one_input();
    all[1].map = all[0].map = test::random_map("pd", 300, 4);
    activation_quantizer const input(any_grid(int_grid<8>{}));
    matrix const x = random_matrix(5, 300, 2);
    std::vector<matrix> y;
    std::vector<packed_product> products;
    for (packed_matrix const& w : all) {
        y.emplace_back(5, w.shape().rows);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        products.emplace_back(all[i], y[i]);
    }
    multiply(products, input, x);
    for (std::size_t i = 0; i < all.size(); ++i) {
        matrix alone(5, all[i].shape().rows);
        multiply(all[i], input, x, alone);
        EXPECT_EQ(y[i], alone) << i;
    }
}

} // namespace
