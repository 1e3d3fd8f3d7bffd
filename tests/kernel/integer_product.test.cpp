// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/integer_product.hpp"
#include "detent/kernel/multiply.hpp"
#include "grid/own_grid.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"

namespace {

using namespace detent;
using namespace detent::test;

/// A product under test.
struct operands {
    packed_matrix w;
    quantized_activations x;

    /// The integer of a weight, a number of the table less the zero point.
    std::int64_t weight(kernel::integer_form const& form, index_t row, index_t col) const {
        float const zero = w.scales.at(row / w.tile.rows, col / w.tile.cols).zero;
        return whole(std::ldexp(double{w.table[w.code_at(row, col)]} - zero, form.weights.exponent));
    }
    /// The integer of an activation, of a stored column.
    std::int64_t activation(kernel::integer_form const& form, index_t token, index_t col) const {
        double const number = double{x.table[x.codes[static_cast<std::size_t>(token * x.shape.cols + col)]]} -
                              x.scale_of(token, col).zero;
        int const shift = x.shifts.empty() ? 0 : x.shifts[static_cast<std::size_t>(col)];
        return whole(std::ldexp(number, form.activations.exponent + form.shift - shift));
    }

private:
    static std::int64_t whole(double number) {
        EXPECT_EQ(number, std::nearbyint(number));
        return static_cast<std::int64_t>(number);
    }
};

template <Grid W, Grid A>
operands random_operands(W const& weights, A const& activations, extents shape, per_tile granularity, index_t tokens,
                         int most_shift = 0, bool per_token = true, index_t width = 0) {
    return {pack(random_solution(weights, shape, granularity.tile(shape), 1)),
            random_activations(activations, {tokens, shape.cols}, per_token, most_shift, 2, width)};
}

/// Where runs of stored columns that share both scales begin.
std::vector<index_t> runs_of(operands const& o) {
    std::vector<index_t> begins;
    for (index_t k = 0; k < o.x.shape.cols; ++k) {
        if (k % o.w.tile.cols == 0 || (o.x.width > 0 && k % o.x.width == 0)) {
            begins.push_back(k);
        }
    }
    return begins;
}

/// (token, row, run)
std::vector<std::int64_t> reference_sums(operands const& o, kernel::integer_form const& form) {
    auto const [rows, cols] = o.w.shape();
    auto const begins = runs_of(o);
    index_t const runs = std::ssize(begins);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(o.x.shape.rows * rows * runs));
    for (index_t t = 0; t < o.x.shape.rows; ++t) {
        for (index_t k = 0; k < cols; ++k) {
            std::int64_t const a = o.activation(form, t, k);
            index_t const run = std::ranges::upper_bound(begins, k) - begins.begin() - 1;
            for (index_t r = 0; r < rows; ++r) {
                sums[static_cast<std::size_t>((t * rows + r) * runs + run)] += o.weight(form, r, k) * a;
            }
        }
    }
    return sums;
}

/// The same by the kernel, with integers stored as T.
template <class T> std::vector<std::int64_t> sums_of(operands const& o, kernel::integer_form const& form) {
    packed_view const w = o.w.view();
    auto const rows = w.shape.rows;
    scratch memory{executor_ref()};
    kernel::stored_activations<T> const x(memory, form, w, o.x, {});
    auto const begins = runs_of(o);
    index_t const runs = std::ssize(begins);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(o.x.shape.rows * rows * runs), -7);
    auto const sum = []<class Sums>(Sums const& s, index_t r) {
        if constexpr (std::is_pointer_v<Sums>) {
            return static_cast<std::int64_t>(s[r]);
        } else {
            std::int32_t lanes[simd::lanes];
            s[static_cast<std::size_t>(r / simd::lanes)].store_unaligned(lanes);
            return std::int64_t{lanes[r % simd::lanes]};
        }
    };
    auto* const own = memory.take<std::uint8_t>(kernel::integer_rows<T>::bytes(x, o.x.shape.rows));
    kernel::integer_rows<T> summed(form, w, x, o.x.shape.rows, own);
    for (index_t row = 0; row < rows; row += kernel::sum_rows) {
        index_t const count = std::min(kernel::sum_rows, rows - row);
        auto const put = [&](index_t first, index_t tokens, index_t span, float const* scales, auto const& sums_of) {
            auto const& last = x.spans[static_cast<std::size_t>(span)];
            index_t const run = std::ranges::upper_bound(begins, last.begin) - begins.begin() - 1;
            for (index_t i = 0; i < tokens; ++i) {
                auto const s = sums_of(i);
                for (index_t r = 0; r < count; ++r) {
                    sums[static_cast<std::size_t>(((first + i) * rows + row + r) * runs + run)] = sum(s, r);
                    EXPECT_EQ(scales[r], o.w.scales.at((row + r) / o.w.tile.rows, last.tile).scale);
                }
            }
        };
        summed.sum(row, count, 0, o.x.shape.rows, put);
    }
    return sums;
}

/// a b + c, rounded once where there is an instruction for it.
float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
    return std::fma(a, b, c);
#else
    return a * b + c;
#endif
}

/// y (token, out): sums of runs, each rounded once and added with its scales, times the token's where it has one.
std::vector<float> reference_product(operands const& o, kernel::integer_form const& form) {
    auto const [rows, cols] = o.w.shape();
    auto const begins = runs_of(o);
    index_t const runs = std::ssize(begins);
    bool const in_groups = o.x.groups() > 1;
    auto const sums = reference_sums(o, form);
    std::vector<float> y(static_cast<std::size_t>(o.x.shape.rows * rows));
    for (index_t t = 0; t < o.x.shape.rows; ++t) {
        int const exponent = form.weights.exponent + form.activations.exponent + form.shift;
        float const factor = std::ldexp(in_groups ? 1.0F : o.x.scale_of(t, 0).scale, -exponent);
        for (index_t r = 0; r < rows; ++r) {
            float total = 0;
            for (index_t run = 0; run < runs; ++run) {
                auto const sum = static_cast<float>(sums[static_cast<std::size_t>((t * rows + r) * runs + run)]);
                index_t const begin = begins[static_cast<std::size_t>(run)];
                float const scale = o.w.scales.at(r / o.w.tile.rows, begin / o.w.tile.cols).scale;
                total = multiply_add(in_groups ? sum * o.x.scale_of(t, begin).scale : sum, scale, total);
            }
            y[static_cast<std::size_t>(t * rows + r)] = total * factor;
        }
    }
    return y;
}

/// y (token, out) by the kernel; between its rows nothing is written.
template <class T>
std::vector<float> product_of(operands const& o, kernel::integer_form const& form, executor_ref executor = {}) {
    index_t const rows = o.w.shape().rows;
    index_t const stride = rows + 3;
    std::vector<float> strided(static_cast<std::size_t>(o.x.shape.rows * stride), -7);
    matrix_product const product{o.w.view(), strided.data(), stride};
    kernel::multiply<T>(form, {&product, 1}, o.x, executor);
    std::vector<float> y;
    for (index_t i = 0; i < std::ssize(strided); ++i) {
        if (i % stride < rows) {
            y.push_back(strided[static_cast<std::size_t>(i)]);
        } else {
            EXPECT_EQ(strided[static_cast<std::size_t>(i)], -7);
        }
    }
    return y;
}

/// y (token, out) in double, of the numbers that codes stand for, and how far a product of floats may be from it: a few
/// roundings for each tile and `more`.
void expect_near_the_product_of_numbers(operands const& o, std::vector<float> const& y, double more = 0) {
    auto const [rows, cols] = o.w.shape();
    for (index_t t = 0; t < o.x.shape.rows; ++t) {
        for (index_t r = 0; r < rows; ++r) {
            double sum = 0;
            double size = 0;
            for (index_t k = 0; k < cols; ++k) {
                auto const s = o.w.scales.at(r / o.w.tile.rows, k / o.w.tile.cols);
                tile_scale const a = o.x.scale_of(t, k);
                auto const at = static_cast<std::size_t>(t * cols + k);
                double const weight = (double{o.w.table[o.w.code_at(r, k)]} - s.zero) * s.scale;
                double const number = (double{o.x.table[o.x.codes[at]]} - a.zero) * a.scale;
                double const x =
                    o.x.shifts.empty() ? number : std::ldexp(number, -o.x.shifts[static_cast<std::size_t>(k)]);
                index_t const weak = o.w.weak.find(k);
                double const product = (weak >= 0 ? o.w.weak.at(weak, r) : weight) * x;
                sum += product;
                size += std::abs(product);
            }
            double const roundings = static_cast<double>(std::ssize(runs_of(o)) + 2 * o.w.weak.count() + 4) + more;
            ASSERT_NEAR(y[static_cast<std::size_t>(t * rows + r)], sum,
                        roundings * std::numeric_limits<float>::epsilon() * size + 1e-30)
                << "token " << t << ", row " << r;
        }
    }
}

template <class T> bool expect_exact_as(operands const& o) {
    auto const form = kernel::integer_form_of<T>(o.w.view(), o.x);
    if (!form) {
        return false;
    }
    EXPECT_EQ(sums_of<T>(o, *form), reference_sums(o, *form));
    auto const y = product_of<T>(o, *form);
    if (o.w.weak.empty()) {
        EXPECT_EQ(y, reference_product(o, *form));
    }
    expect_near_the_product_of_numbers(o, y);
    return true;
}

/// In every form that there is.
void expect_exact(operands const& o) {
    bool const bytes = expect_exact_as<std::int8_t>(o);
    bool const words = expect_exact_as<std::int16_t>(o);
    EXPECT_TRUE(bytes || words);
    auto const [rows, cols] = o.w.shape();
    std::vector<float> y(static_cast<std::size_t>(o.x.shape.rows * rows));
    matrix_product const product{o.w.view(), y.data(), rows};
    EXPECT_EQ(kernel::multiply({&product, 1}, o.x), 1); // in the form that is fastest
    expect_near_the_product_of_numbers(o, y, 8 + static_cast<double>(cols / kernel::block_width));
    if (testing::Test::HasFailure()) {
        FAIL() << o.w.bits << " bits, " << o.w.extent.rows << " x " << o.w.extent.cols << ", tile " << o.w.tile.rows
               << " x " << o.w.tile.cols << ", " << o.x.shape.rows << " tokens of " << o.x.bits << " bits";
    }
}

/// Weights of many grids.
std::vector<packed_matrix> random_weights(extents shape, per_tile granularity) {
    auto const on = [&](auto... grids) {
        return std::vector<packed_matrix>{pack(random_solution(grids, shape, granularity.tile(shape), 1))...};
    };
    return on(int_grid<1>{}, int_grid<2>{}, int_grid<3>{}, int_grid<4>{}, int_grid<8>{}, int_grid<1, zero::none>{},
              int_grid<2, zero::none>{}, int_grid<3, zero::none>{}, int_grid<4, zero::none>{},
              int_grid<5, zero::none>{}, int_grid<8, zero::none>{}, ternary{}, powers_of_two{}, e2m1{}, fp_grid<3, 0>{},
              fp_grid<1, 2>{}, fp_grid<2, 3>{}, fp_grid<3, 2>{}, fp_grid<3, 3>{}, fp_grid<3, 4>{});
}

/// Activations on many grids.
std::vector<quantized_activations> random_inputs(extents shape, bool per_token) {
    auto const on = [&](auto... grids) {
        return std::vector<quantized_activations>{random_activations(grids, shape, per_token, 0, 2)...};
    };
    return on(int_grid<4>{}, int_grid<8>{}, int_grid<4, zero::none>{}, int_grid<8, zero::none>{}, e2m1{},
              fp_grid<3, 0>{}, fp_grid<1, 2>{}, fp_grid<1, 6>{}, fp_grid<2, 5>{}, fp_grid<3, 4>{});
}

/// Rows, the matrix, groups that are no multiple of a word and that are, and blocks.
constexpr per_tile tiles[] = {{1, 0}, {0, 0}, {1, 1}, {1, 5}, {1, 37}, {1, 128}, {3, 0}, {2, 50}};

TEST(integer_product, is_exact_for_every_pair_of_grids) {
    for (bool const grouped : {false, true}) {
        extents const shape = grouped ? extents{7, 150} : extents{5, 600};
        for (packed_matrix const& w : random_weights(shape, grouped ? per_tile{1, 37} : per_tile{1, 0})) {
            for (index_t const tokens : {1, 2, 9}) {
                for (quantized_activations const& x : random_inputs({tokens, shape.cols}, tokens != 9)) {
                    expect_exact({w, x});
                    ASSERT_FALSE(HasFailure());
                }
            }
        }
    }
}

TEST(integer_product, is_exact_for_every_tile_and_ragged_shapes) {
    for (per_tile const tile : tiles) {
        for (index_t const cols : {1, 3, 7, 64, 130, 600}) {
            for (index_t const tokens : {1, 2, 11}) {
                expect_exact(random_operands(int_grid<4>{}, int_grid<8>{}, {9, cols}, tile, tokens));
                expect_exact(random_operands(e2m1{}, e2m1{}, {9, cols}, tile, tokens, 3));
                expect_exact(random_operands(int_grid<3>{}, int_grid<8, zero::none>{}, {9, cols}, tile, tokens));
                expect_exact(random_operands(fp_grid<3, 4>{}, fp_grid<3, 0>{}, {9, cols}, tile, tokens, 5));
                ASSERT_FALSE(HasFailure());
            }
        }
    }
}

TEST(integer_product, is_exact_for_any_number_of_rows_and_tokens) {
    for (index_t const rows : {1, 3, 4, 31, 32, 33, 63, 64, 65, 130}) {
        for (index_t const tokens : {0, 1, 2, 3, 4, 7, 8, 10, 17, 70}) {
            expect_exact(random_operands(int_grid<4>{}, int_grid<8>{}, {rows, 43}, {1, 16}, tokens));
            expect_exact(random_operands(e2m1{}, int_grid<8, zero::none>{}, {rows, 20}, {1, 0}, tokens));
            ASSERT_FALSE(HasFailure());
        }
    }
}

TEST(integer_product, is_exact_around_the_depth_of_a_panel) {
    for (index_t const cols : {255, 256, 257, 511, 512, 513, 1030, 2100}) {
        for (per_tile const tile : {per_tile{1, 0}, {1, 37}, {1, 128}, {1, 768}}) {
            for (index_t const tokens : {1, 8}) {
                expect_exact(random_operands(e2m1{}, int_grid<8>{}, {5, cols}, tile, tokens));
                expect_exact(random_operands(int_grid<8>{}, fp_grid<3, 4>{}, {5, cols}, tile, tokens));
                ASSERT_FALSE(HasFailure());
            }
        }
    }
}

TEST(integer_product, shifts_are_exact_as_bytes_and_as_int16) {
    extents const shape{6, 210};
    for (int const most_shift : {1, 2, 3, 7, 8}) {
        for (bool const per_token : {false, true}) {
            for (index_t const tokens : {1, 12}) {
                expect_exact(random_operands(e2m1{}, e2m1{}, shape, {1, 64}, tokens, most_shift, per_token));
                expect_exact(random_operands(e2m1{}, fp_grid<3, 0>{}, shape, {1, 0}, tokens, most_shift, per_token));
                int_grid<4> const affine;
                expect_exact(random_operands(affine, affine, shape, {1, 0}, tokens, most_shift, per_token));
                ASSERT_FALSE(HasFailure());
            }
        }
    }
    auto shifted_alike = random_operands(e2m1{}, int_grid<8>{}, shape, {1, 64}, 9);
    shifted_alike.x.shifts.assign(210, 15);
    expect_exact(shifted_alike);
}

TEST(integer_product, is_exact_for_scales_of_groups_of_activations) {
    int_grid<4> const int4;
    int_grid<8> const int8;
    int_grid<8, zero::none> const int8sym;
    for (index_t const tokens : {1, 3, 17, 40}) {
        for (index_t const width : {1, 5, 16, 32, 128, 1000}) {
            for (per_tile const tile : {per_tile{1, 0}, {1, 16}, {1, 32}, {1, 37}, {1, 128}}) {
                bool const per_token = tokens != 3; // else the scales of groups are the same for all
                extents const shape{5, 232};
                expect_exact(random_operands(int4, int8sym, shape, tile, tokens, 0, per_token, width));
                expect_exact(random_operands(int4, int8, shape, tile, tokens, 0, per_token, width));
                expect_exact(random_operands(e2m1{}, e2m1{}, shape, tile, tokens, 2, per_token, width));
                expect_exact(random_operands(e2m1{}, int4, shape, tile, tokens, 0, per_token, width));
                expect_exact(random_operands(fp_grid<3, 4>{}, int8, shape, tile, tokens, 0, per_token, width));
                ASSERT_FALSE(HasFailure()) << tokens << " tokens, groups of " << width;
            }
        }
    }
}

/// Codes of the largest numbers only, so that sums are as large as can be.
template <class W, class A> operands largest(W const& weights, A const& activations, index_t cols, index_t tokens) {
    auto o = random_operands(weights, activations, {3, cols}, {1, 0}, tokens, 0, false);
    std::vector<code> const codes(static_cast<std::size_t>(3 * cols), weights.encode(1e6F));
    o.w.codes = pack_rows(W::bits, {3, cols}, codes.data());
    std::ranges::fill(o.w.scales.zeros, 0.0F);
    std::ranges::fill(o.x.codes, activations.encode(1e6F));
    o.x.scales[0].zero = 0;
    return o;
}

TEST(integer_product, sums_beyond_int32_are_exact) {
    for (index_t const tokens : {1, 9}) {
        operands const bytes = largest(int_grid<8>{}, int_grid<8>{}, 40000, tokens);
        auto const form = kernel::integer_form_of<std::int16_t>(bytes.w.view(), bytes.x);
        ASSERT_EQ(reference_sums(bytes, *form).front(), 255LL * 255 * 40000);
        expect_exact(bytes);
        expect_exact(largest(fp_grid<3, 4>{}, fp_grid<3, 4>{}, 3000, tokens));
        operands wide = largest(fp_grid<3, 4>{}, fp_grid<3, 0>{}, 3000, tokens);
        wide.x.shifts.assign(3000, 0);
        wide.x.shifts[7] = 8;
        expect_exact(wide);
    }
}

TEST(integer_product, adds_weak_columns) {
    for (float_format const format : all_formats) {
        for (index_t const tokens : {1, 20}) {
            solution s = random_solution(int_grid<4>{}, {70, 90}, {1, 16}, 1);
            weaken(s, int_grid<4>{}, random_columns(90, 6, 3), format);
            expect_exact({pack(s), random_activations(int_grid<8>{}, {tokens, 90}, true, 0, 1)});
            expect_exact({pack(s), random_activations(e2m1{}, {tokens, 90}, false, 3, 1)});
            expect_exact({pack(s), random_activations(int_grid<8>{}, {tokens, 90}, true, 0, 1, 32)});
        }
    }
}

TEST(integer_product, codes_that_name_no_number_do_no_harm) {
    operands o = random_operands(ternary{}, e2m1{}, {9, 50}, {1, 0}, 3); // the fourth code of ternary is NaN
    o.x.table[15] = std::numeric_limits<float>::quiet_NaN();
    std::ranges::replace(o.x.codes, code{15}, code{0});
    expect_exact(o);
}

void expect_the_same_bits_alone(operands const& o) {
    kernel::with_integer_form(o.w.view(), o.x, [&]<class T>(kernel::integer_form const& form, T) {
        auto const batch = product_of<T>(o, form);
        for (index_t t = 0; t < 19; ++t) {
            operands alone = o;
            alone.x.shape.rows = 1;
            auto const scales = o.x.scales.begin() + t * o.x.groups();
            alone.x.scales.assign(scales, scales + o.x.groups());
            alone.x.codes.assign(o.x.codes.begin() + t * 1100, o.x.codes.begin() + (t + 1) * 1100);
            auto const y = product_of<T>(alone, form);
            EXPECT_TRUE(std::ranges::equal(y, std::span(batch).subspan(static_cast<std::size_t>(t * 71), 71))) << t;
        }
    });
}

TEST(integer_product, a_token_gets_the_same_bits_alone_and_in_a_batch) {
    for (index_t const width : {0, 32}) {
        per_tile const tile{1, 48};
        expect_the_same_bits_alone(random_operands(int_grid<3>{}, int_grid<8>{}, {71, 1100}, tile, 19, 0, true, width));
    }
}

TEST(integer_product, threads_change_nothing) {
    for (index_t const tokens : {1, 5, 300}) {
        operands const o = random_operands(int_grid<4>{}, int_grid<8>{}, {150, 600}, {1, 100}, tokens);
        kernel::with_integer_form(o.w.view(), o.x, [&]<class T>(kernel::integer_form const& form, T) {
            auto const serially = product_of<T>(o, form);
            EXPECT_EQ(serially, reference_product(o, form));
            for (index_t const count : {2, 3}) {
                thread_team many(count);
                EXPECT_EQ(product_of<T>(o, form, many), serially) << tokens << " tokens, " << count << " threads";
            }
        });
    }
}

} // namespace
