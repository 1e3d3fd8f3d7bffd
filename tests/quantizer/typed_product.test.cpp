// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <utility>

#include <gtest/gtest.h>

#include "detent/core/error.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "grid/own_grid.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;
using test::random_matrix;

/// A grid whose numbers are known only at run time, as `decode` is no constant expression.
template <Grid G> struct computed : G {
    static float decode(code c) {
        static auto const numbers = table_of(G{});
        return numbers[c];
    }
};

/// The multiples of a step that is a value: two objects of the type have other numbers.
struct steps {
    static constexpr int bits = 6;
    float step = 1;

    constexpr float lowest() const { return -32 * step; }
    constexpr float highest() const { return 31 * step; }
    constexpr float decode(code c) const { return static_cast<float>(c - 32) * step; }
    code encode(float x) const { return static_cast<code>(std::nearbyint(x / step) + 32); }

    constexpr bool operator==(steps const&) const = default;
};

static_assert(kernel::ConstexprGrid<int_grid<4>> && kernel::ConstexprGrid<e5m2> && kernel::ConstexprGrid<nf4>);
static_assert(kernel::ConstexprGrid<test::five> && kernel::ConstexprGrid<test::powers_of_two>);
static_assert(Grid<computed<e4m3>> && !kernel::ConstexprGrid<computed<e4m3>> && !kernel::ConstexprGrid<steps>);

constexpr extents shape{21, 300};

template <Grid G, Granularity P>
quantized_matrix<G, P> random_weights(G const& grid, P const& granularity, index_t weak) {
    solution s = test::random_solution(grid, shape, granularity.tile(shape), 1);
    test::weaken(s, grid, test::random_columns(shape.cols, weak, 3), float_format::f16);
    return {grid, granularity, s};
}

/// Whether weak columns are possible.
template <Grid G> bool has_0(G const& grid) { return grid.decode(grid.encode(0)) == 0; }

/// Products of floats have the bits of those with the packed matrix.
template <Grid G, Granularity P> void expect_products_of_packed(G const& grid, P const& granularity) {
    for (index_t const weak : {0, 5}) {
        if (weak > 0 && !has_0(grid)) {
            continue;
        }
        auto const w = random_weights(grid, granularity, weak);
        for (index_t const tokens : {0, 1, 2, 9, 17, 40}) {
            matrix const x = random_matrix(tokens, shape.cols, 4);
            matrix y(tokens, shape.rows);
            matrix expected(tokens, shape.rows);
            auto const expect_same = [&](char const* product) {
                EXPECT_EQ(y, expected) << product << ", " << G::bits << " bits, " << tokens << " tokens, " << weak
                                       << " weak columns, " << w.packed().tile.cols << " columns of a tile";
                y.setConstant(-7);
            };
            for (input_format const format : {input_format::f32, input_format::bf16, input_format::int8}) {
                multiply(w.packed(), x, expected, {}, format);
                multiply(w, x, y, {}, format);
                expect_same("of a format");
            }
            multiply(w.packed(), x, expected);
            multiply(w, x, y);
            expect_same("of floats");
            y = (w * x.transpose()).transpose();
            expect_same("operator");
        }
    }
}

/// The same for tiles of one and of more scales to a block, and for tiles that blocks cannot serve.
template <Grid G> void expect_products_of_packed(G const& grid = {}) {
    expect_products_of_packed(grid, per_group<128>{});
    for (index_t const cols : {32, 37}) {
        expect_products_of_packed(grid, per_group<>{cols});
    }
}

template <int... Less> void expect_products_of_integers(std::integer_sequence<int, Less...>) {
    (expect_products_of_packed<int_grid<Less + 1>>(), ...);
    (expect_products_of_packed<int_grid<Less + 1, zero::none>>(), ...);
}

TEST(typed_product, has_the_bits_of_the_packed_product_for_integers) {
    expect_products_of_integers(std::make_integer_sequence<int, 8>{});
}

TEST(typed_product, has_the_bits_of_the_packed_product_for_floating_point_numbers) {
    expect_products_of_packed<e2m1>();
    expect_products_of_packed<fp_grid<3, 0>>();
    expect_products_of_packed<fp_grid<2, 3>>();
    expect_products_of_packed<fp_grid<1, 6>>();
    expect_products_of_packed<e4m3>();
    expect_products_of_packed<e5m2>();
}

TEST(typed_product, has_the_bits_of_the_packed_product_for_codebooks_and_a_users_grids) {
    expect_products_of_packed<nf4>();
    expect_products_of_packed<ternary>();
    expect_products_of_packed<test::five>();
    expect_products_of_packed<test::powers_of_two>();
    expect_products_of_packed<computed<test::powers_of_two>>();
    expect_products_of_packed<computed<e4m3>>();
    expect_products_of_packed<computed<int_grid<8>>>();
    for (float const step : {1.0F, 0.3F}) {
        expect_products_of_packed(steps{step});
    }
}

TEST(typed_product, has_the_bits_of_the_packed_product_for_every_granularity) {
    auto const expect = [](auto const& grid) {
        expect_products_of_packed(grid, per_channel{});
        expect_products_of_packed(grid, per_tensor{});
        expect_products_of_packed(grid, per_group<32>{});
        expect_products_of_packed(grid, per_group<37>{});
        expect_products_of_packed(grid, per_group<1000>{});
        expect_products_of_packed(grid, per_block<2, 64>{});
        expect_products_of_packed(grid, per_tile{3, 50});
    };
    expect(int_grid<4>{});
    expect(e4m3{});
}

/// Products of codes have the bits of those with the packed matrix.
template <Grid W, Grid A> void expect_products_of_codes(int most_shift) {
    for (index_t const weak : {0, 5}) {
        auto const w = random_weights(W{}, per_group<64>{}, weak);
        for (index_t const tokens : {0, 1, 2, 9, 17, 40}) {
            auto const x = test::random_activations(A{}, {tokens, shape.cols}, true, most_shift, 4);
            matrix y = matrix::Constant(tokens, shape.rows, -7);
            matrix expected(tokens, shape.rows);
            multiply(w.packed(), x, expected);
            multiply(w, x, y);
            EXPECT_EQ(y, expected) << W::bits << " and " << A::bits << " bits, " << tokens << " tokens";
        }
    }
}

TEST(typed_product, has_the_bits_of_the_packed_product_for_codes_of_activations) {
    for (int const most_shift : {0, 3}) {
        expect_products_of_codes<int_grid<4>, int_grid<8>>(most_shift);
        expect_products_of_codes<int_grid<3, zero::none>, int_grid<4, zero::none>>(most_shift);
        expect_products_of_codes<int_grid<8>, e2m1>(most_shift);
        expect_products_of_codes<e2m1, e2m1>(most_shift);
        expect_products_of_codes<e4m3, e2m1>(most_shift);
        expect_products_of_codes<nf4, int_grid<8>>(most_shift);
        expect_products_of_codes<computed<e2m1>, e2m1>(most_shift);
    }
}

TEST(typed_product, has_the_bits_of_the_packed_product_transposed) {
    auto const expect = [](auto const& grid) {
        for (index_t const tokens : {0, 1, 9}) {
            auto const w = random_weights(grid, per_group<128>{}, 5);
            matrix const g = random_matrix(tokens, shape.rows, 4);
            matrix x = matrix::Constant(tokens, shape.cols, -7);
            matrix expected(tokens, shape.cols);
            multiply_transposed(w.packed(), g, expected);
            multiply_transposed(w, g, x);
            EXPECT_EQ(x, expected);
        }
    };
    expect(int_grid<3>{});
    expect(nf4{});
    expect(computed<e4m3>{});
}

TEST(typed_product, follows_the_order_of_columns) {
    solution s = test::random_solution(int_grid<4>{}, shape, {1, 128}, 1);
    s.map = input_map(permutation{test::random_order(shape.cols, 2)}, shape.cols);
    quantized_matrix const w(int_grid<4>{}, per_group<128>{}, s);
    matrix const x = random_matrix(3, shape.cols, 4);
    matrix y(3, shape.rows);
    matrix expected(3, shape.rows);
    multiply(w.packed(), x, expected);
    multiply(w, x, y);
    EXPECT_EQ(y, expected);
}

TEST(typed_product, threads_do_not_change_a_bit) {
    auto const w = random_weights(int_grid<4>{}, per_group<128>{}, 5);
    for (index_t const tokens : {1, 40}) {
        matrix const x = random_matrix(tokens, shape.cols, 4);
        matrix serially(tokens, shape.rows);
        multiply(w, x, serially);
        for (index_t const count : {2, 3}) {
            thread_team many(count);
            matrix y(tokens, shape.rows);
            multiply(w, x, y, many);
            EXPECT_EQ(y, serially) << count << " threads";
        }
    }
}

TEST(typed_product, several_in_one_call_have_the_bits_of_packed_ones) {
    auto const gate = random_weights(int_grid<4>{}, per_group<64>{}, 0);
    auto const up = random_weights(int_grid<4>{}, per_group<64>{}, 2);
    for (index_t const tokens : {1, 5, 40}) {
        matrix const x = random_matrix(tokens, shape.cols, 2);
        activation_quantizer const input(any_grid(int_grid<8>{}));
        auto const codes = input.quantize(x);
        matrix g(tokens, shape.rows);
        matrix u(tokens, shape.rows);
        matrix packed_g(tokens, shape.rows);
        matrix packed_u(tokens, shape.rows);
        auto const after = [](matrix const& of) {
            return epilogue{.function = epilogue_function::silu, .times = of.data(), .times_stride = shape.rows};
        };
        packed_product const packed[] = {{gate, packed_g}, {up, packed_u, after(packed_g)}};
        auto const expect_equal = [&] {
            EXPECT_EQ(g, packed_g) << tokens << " tokens";
            EXPECT_EQ(u, packed_u) << tokens << " tokens";
            g.setZero();
            u.setZero();
        };
        multiply({typed_product(gate, g), typed_product(up, u, after(g))}, x);
        multiply(packed, x);
        expect_equal();
        multiply({typed_product(gate, g), typed_product(up, u, after(g))}, x, {}, input_format::int8);
        multiply(packed, x, {}, input_format::int8);
        expect_equal();
        multiply({typed_product(gate, g), typed_product(up, u, after(g))}, input, x);
        multiply(packed, input, x);
        expect_equal();
        multiply({typed_product(gate, g), typed_product(up, u, after(g))}, codes);
        multiply(packed, codes);
        expect_equal();
    }
}

} // namespace
