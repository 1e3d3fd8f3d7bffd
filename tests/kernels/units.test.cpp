// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/dispatch.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/nn/products.hpp"
#include "detent/quantizer/product.hpp"
#include "kernels/of_headers.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_solution.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

std::vector<packed_matrix> random_weights(extents shape) {
    auto const on = [&](auto... grids) {
        return std::vector<packed_matrix>{pack(test::random_solution(grids, shape, {1, 64}, 1))...};
    };
    return on(int_grid<2>{}, int_grid<3>{}, int_grid<4>{}, int_grid<8>{}, int_grid<4, zero::none>{}, e2m1{}, nf4{},
              e4m3{});
}

/// y (token, out) by a unit.
matrix product_of(compiled::unit const& unit, packed_matrix const& w, matrix const& x, input_format format) {
    packed_view const view = w.view();
    matrix y(x.rows(), w.shape().rows);
    matrix_product const product{view, y.data(), y.cols()};
    unit.multiply(&product, 1, x.data(), x.cols(), x.rows(), kernel::loop_of({}), static_cast<int>(format));
    return y;
}

TEST(units, have_different_names_and_end_with_the_one_for_all) {
    std::set<std::string> names;
    for (compiled::unit const* const unit : compiled::available()) {
        EXPECT_TRUE(names.insert(unit->name).second);
    }
    EXPECT_STREQ(compiled::available().back()->name, "baseline");
}

TEST(units, multiply_as_the_dequantized_matrix_does) {
    for (packed_matrix const& w : random_weights({37, 300})) {
        matrix const dense = dequantize(w);
        for (index_t const tokens : {1, 5, 40}) {
            matrix const x = random_matrix(tokens, 300, 2);
            matrix const exact = (x.cast<double>() * dense.cast<double>().transpose()).cast<float>();
            float const size = (x.cwiseAbs() * dense.cwiseAbs().transpose()).maxCoeff();
            for (compiled::unit const* const unit : compiled::available()) {
                float const f32 = (product_of(*unit, w, x, input_format::f32) - exact).cwiseAbs().maxCoeff();
                EXPECT_LE(f32, 1e-6F * size) << unit->name;
                for (input_format const format : {input_format::bf16, input_format::int8}) {
                    float const rounded = (product_of(*unit, w, x, format) - exact).cwiseAbs().maxCoeff();
                    EXPECT_LE(rounded, 4e-3F * size) << unit->name;
                    EXPECT_GT(rounded, 0) << unit->name;
                }
            }
        }
    }
}

TEST(units, multiply_codes_of_activations) {
    packed_matrix const w = random_weights({37, 300})[2];
    for (index_t const tokens : {1, 20}) {
        for (int const most_shift : {0, 3}) {
            auto const x = test::random_activations(e2m1{}, {tokens, 300}, true, most_shift, 2, 16 * most_shift);
            matrix const inputs = dequantize(x);
            matrix const exact = inputs * dequantize(w).transpose();
            float const size = (inputs.cwiseAbs() * dequantize(w).cwiseAbs().transpose()).maxCoeff();
            matrix y(tokens, 37);
            multiply(w, x, y); // by that which is chosen
            EXPECT_LE((y - exact).cwiseAbs().maxCoeff(), 2e-6F * size);
        }
    }
}

TEST(units, multiply_transposed) {
    packed_matrix const w = random_weights({37, 300})[2];
    matrix const g = random_matrix(9, 37, 3);
    matrix x(9, 300);
    multiply_transposed(w, g, x);
    EXPECT_LE((x - g * dequantize(w)).cwiseAbs().maxCoeff(), 1e-4F * x.cwiseAbs().maxCoeff());
}

#if defined(__x86_64__) && !defined(__SSE3__) && !defined(__FAST_MATH__)
TEST(units, have_the_bits_of_headers_for_the_same_instructions) {
    for (packed_matrix const& w : random_weights({37, 300})) {
        packed_view const view = w.view();
        for (index_t const tokens : {1, 5, 40}) {
            matrix const x = random_matrix(tokens, 300, 2);
            for (input_format const format : {input_format::f32, input_format::bf16, input_format::int8}) {
                matrix y(tokens, 37);
                test::multiply_of_headers(&view, x.data(), 300, tokens, y.data(), 37, static_cast<int>(format));
                EXPECT_EQ(product_of(*compiled::available().back(), w, x, format), y);
            }
        }
    }
}
#endif

TEST(units, threads_change_no_bit) {
    packed_matrix const w = random_weights({150, 1100})[2];
    thread_team two(2);
    for (index_t const tokens : {1, 40}) {
        matrix const x = random_matrix(tokens, 1100, 2);
        matrix serially(tokens, 150);
        matrix y(tokens, 150);
        multiply(w, x, serially);
        multiply(w, x, y, two);
        EXPECT_EQ(y, serially);
    }
}

/// C += factor A B by a unit, of A (m, k) and B (k, n) in rows or columns.
template <class T, class Sum, class A, class B>
void add_product(compiled::unit const& unit, T factor, A const& a, B const& b, basic_matrix<Sum>& c, bool upper) {
    auto const row_stride = [](auto const& x) { return x.IsRowMajor ? x.outerStride() : 1; };
    auto const col_stride = [](auto const& x) { return x.IsRowMajor ? 1 : x.outerStride(); };
    unit.dense.of<T, Sum>()(a.rows(), b.cols(), a.cols(), factor, a.data(), row_stride(a), col_stride(a), b.data(),
                            row_stride(b), col_stride(b), c.data(), c.cols(), upper);
}

TEST(units, multiply_dense_matrices) {
    auto const check = [](auto number, auto sum, double tolerance) {
        using T = decltype(number);
        using Sum = decltype(sum);
        basic_matrix<T> const a = random_matrix(37, 300, 1).template cast<T>();
        basic_matrix<T> const b = random_matrix(37, 300, 2).template cast<T>(); // transposed
        basic_matrix<Sum> const before = random_matrix(37, 37, 3).template cast<Sum>();
        basic_matrix<double> const product = a.template cast<double>() * b.transpose().template cast<double>();
        basic_matrix<double> const expected = before.template cast<double>() - product;
        for (compiled::unit const* const unit : compiled::available()) {
            basic_matrix<Sum> all = before, upper = before;
            add_product<T, Sum>(*unit, -1, a, b.transpose(), all, false);
            EXPECT_LE((all.template cast<double>() - expected).cwiseAbs().maxCoeff(), tolerance) << unit->name;
            add_product<T, Sum>(*unit, -1, a, b.transpose(), upper, true);
            auto const triangle = [](auto const& m) {
                return basic_matrix<Sum>(m.template triangularView<Eigen::Upper>());
            };
            EXPECT_EQ(triangle(upper), triangle(all)) << unit->name;
            EXPECT_EQ(upper(36, 0), before(36, 0)) << unit->name << " makes what nobody asked for";
        }
    };
    check(0.0F, 0.0F, 1e-4);
    check(0.0F, 0.0, 1e-4);
    check(0.0, 0.0, 1e-12);
}

TEST(units, are_what_dense_products_of_models_use) {
    matrix const a = random_matrix(45, 300, 1), b = random_matrix(300, 70, 2);
    matrix c = matrix::Zero(45, 70), expected = c;
    nn::add_product(c, a, b);
    add_product<float, float>(compiled::chosen(), 1, a, b, expected, false);
    EXPECT_EQ(c, expected);
}

TEST(dispatch, refuses_callers_of_other_dense_products) {
    EXPECT_EQ(&compiled::chosen_products(), &compiled::chosen().dense);
    EXPECT_THROW(compiled::chosen_products(compiled::dense_products::newest + 1), std::runtime_error);
}

TEST(dispatch, refuses_callers_of_other_headers) {
    std::uint32_t const layout = compiled::layout_of_headers();
    EXPECT_EQ(&compiled::chosen(layout), &compiled::chosen());
    for (compiled::unit const* const unit : compiled::available()) {
        EXPECT_EQ(unit->layout, layout) << unit->name;
    }
    try {
        compiled::chosen(layout + 1);
        FAIL() << "nothing thrown";
    } catch (std::runtime_error const& e) {
        EXPECT_EQ(e.what(), "detent::kernels was compiled from other headers of detent (layout " +
                                std::to_string(layout) + ") than its caller (layout " + std::to_string(layout + 1) +
                                "): use the headers that were installed with it");
    }
}

TEST(dispatch, finds_the_fastest_unit_unless_told_another) {
    auto const units = compiled::available();
    EXPECT_NE(std::ranges::find(units, &compiled::chosen()), units.end());
    packed_matrix const w = random_weights({37, 300})[2];
    matrix const x = random_matrix(1, 300, 2);
    matrix y(1, 37);
    multiply(w, x, y);
    EXPECT_EQ(y, product_of(compiled::chosen(), w, x, input_format::f32));
}

} // namespace
