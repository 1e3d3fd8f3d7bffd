// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/kernel/row_pieces.hpp"
#include "kernel/mapped_bytes.hpp"
#include "kernel/products.hpp"

namespace {

using namespace detent;
using test::mapped_bytes;

std::vector<std::uint8_t> stored(std::vector<float> const& scales, scale_format format) {
    std::vector<std::uint8_t> bytes;
    for (float const s : scales) {
        auto const put = [&](auto number) {
            auto const* const from = reinterpret_cast<std::uint8_t const*>(&number);
            bytes.insert(bytes.end(), from, from + sizeof number);
        };
        switch (format.kind) {
        case scale_kind::f16:
            put(half{s});
            break;
        case scale_kind::bf16:
            put(bfloat16{s});
            break;
        case scale_kind::f32:
            put(s);
            break;
        default:
            put(byte_of(format, s));
        }
    }
    return bytes;
}

/// The product with codes and scales that end at unreadable pages has the bits of that with the matrix.
void expect_same_of_mapped(packed_matrix w, scale_format format) {
    for (float& s : w.scales.scales) {
        s = store(format, s);
    }
    std::size_t const bytes = static_cast<std::size_t>(w.extent.rows * w.row_bytes());
    mapped_bytes const codes(w.codes.data(), bytes);
    auto const scales = stored(w.scales.scales, format);
    mapped_bytes const mapped_scales(scales.data(), scales.size());
    packed_view const owned = w.view();
    packed_view borrowed = owned;
    borrowed.codes = codes.data();
    borrowed.scales = nullptr;
    borrowed.stored_scales = mapped_scales.data();
    borrowed.stored_as = format;
    borrowed.readable = 0;
    mapped_bytes const weak(owned.weak.values, static_cast<std::size_t>(owned.weak.count * owned.weak.rows *
                                                                        bits_of(owned.weak.format) / 8));
    borrowed.weak.values = weak.data();
    for (index_t const tokens : {1, 3, 20, 40}) {
        test::inputs const x(tokens, w.extent.cols);
        std::vector<float> expected(static_cast<std::size_t>(tokens * w.extent.rows));
        std::vector<float> y(expected.size());
        for (auto const in : {input_format::f32, input_format::bf16, input_format::int8}) {
            kernel::multiply(owned, x.x.data(), x.stride, tokens, expected.data(), w.extent.rows, {}, in);
            kernel::multiply(borrowed, x.x.data(), x.stride, tokens, y.data(), w.extent.rows, {}, in);
            EXPECT_EQ(y, expected) << w.bits << " bits, " << tokens << " tokens, " << static_cast<int>(format.kind)
                                   << ", inputs " << static_cast<int>(in);
        }
    }
}

TEST(borrowed_views, are_multiplied_where_they_lie) {
    for (extents const shape : {extents{67, 300}, extents{5, 24}, extents{300, 512}}) {
        for (extents const tile : {extents{1, 64}, extents{1, 5}, extents{4, 128}}) {
            per_tile const granularity{tile.rows, tile.cols};
            for (scale_kind const kind : {scale_kind::f16, scale_kind::bf16, scale_kind::f32, scale_kind::e8m0}) {
                expect_same_of_mapped(test::random_packed(int_grid<4>{}, shape, granularity), kind);
            }
            scale_format const e4m3_of_unit(scale_kind::ue4m3, 0.01F);
            expect_same_of_mapped(test::random_packed(e2m1{}, shape, granularity), e4m3_of_unit);
            expect_same_of_mapped(test::random_packed(int_grid<1>{}, shape, granularity), scale_kind::f16);
            expect_same_of_mapped(test::random_packed(int_grid<3>{}, shape, granularity), scale_kind::f16);
            expect_same_of_mapped(test::random_packed(int_grid<8>{}, shape, granularity), scale_kind::f16);
        }
    }
}

TEST(borrowed_views, have_weak_columns) {
    for (float_format const format : test::all_formats) {
        expect_same_of_mapped(test::weak_packed(int_grid<4>{}, {67, 300}, {1, 64}, 3, format), scale_kind::f16);
    }
}

/// y of one product (token, out), with its epilogue.
std::vector<float> product_of(packed_view const& w, test::inputs const& x, index_t tokens, epilogue const& after,
                              std::vector<float> y, input_format format) {
    matrix_product const p{w, y.data(), w.shape.rows, after};
    kernel::multiply({&p, 1}, x.x.data(), x.stride, tokens, {}, format);
    return y;
}

double function_of(epilogue_function f, double v) {
    switch (f) {
    case epilogue_function::silu:
        return v / (1 + std::exp(-v));
    case epilogue_function::gelu:
        return v * std::erfc(-v / std::sqrt(2.0)) / 2;
    case epilogue_function::gelu_tanh:
        return v / 2 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v)));
    case epilogue_function::relu:
        return std::max(v, 0.0);
    default:
        return v;
    }
}

TEST(epilogues, follow_the_sums) {
    packed_matrix const w = test::random_packed(int_grid<4>{}, {77, 300}, {1, 64});
    for (index_t const tokens : {1, 3, 20, 40}) {
        test::inputs const x(tokens, 300);
        test::inputs const bias(1, 77);
        test::inputs const times(tokens, 77);
        test::inputs const plus(tokens + 1, 77);
        auto const size = static_cast<std::size_t>(tokens * 77);
        for (auto const format : {input_format::f32, input_format::bf16, input_format::int8}) {
            auto const sums = product_of(w.view(), x, tokens, {}, std::vector<float>(size), format);
            for (auto const f : {epilogue_function::none, epilogue_function::silu, epilogue_function::gelu,
                                 epilogue_function::gelu_tanh, epilogue_function::relu}) {
                epilogue const after{bias.row(0), f, times.row(0), times.stride, plus.row(0), plus.stride};
                auto const y = product_of(w.view(), x, tokens, after, std::vector<float>(size), format);
                for (index_t t = 0; t < tokens; ++t) {
                    for (index_t r = 0; r < 77; ++r) {
                        auto const i = static_cast<std::size_t>(t * 77 + r);
                        double const v = double{sums[i] + bias.row(0)[r]};
                        double const term = function_of(f, v) * times.row(t)[r];
                        ASSERT_NEAR(y[i], term + plus.row(t)[r], 2e-6 * (std::abs(term) + std::abs(plus.row(t)[r])))
                            << static_cast<int>(f) << ", " << tokens << " tokens, " << v;
                    }
                }
            }
        }
    }
}

TEST(epilogues, add_to_what_is_there) {
    packed_matrix const w = test::random_packed(int_grid<4>{}, {77, 300}, {1, 64});
    for (index_t const tokens : {1, 3, 20, 40, 300}) {
        test::inputs const x(tokens, 300);
        auto const size = static_cast<std::size_t>(tokens * 77);
        for (auto const format : {input_format::f32, input_format::int8}) {
            auto const sums = product_of(w.view(), x, tokens, {}, std::vector<float>(size), format);
            std::vector<float> y(size, 0.5F);
            matrix_product const p{w.view(), y.data(), 77, {.plus = y.data(), .plus_stride = 77}};
            kernel::multiply({&p, 1}, x.x.data(), x.stride, tokens, {}, format);
            for (std::size_t i = 0; i < size; ++i) {
                ASSERT_EQ(y[i], sums[i] + 0.5F);
            }
        }
    }
}

TEST(products_in_one_call, have_the_bits_of_each_alone) {
    packed_matrix const matrices[] = {test::random_packed(int_grid<4>{}, {300, 300}, {1, 64}),
                                      test::random_packed(int_grid<4>{}, {300, 300}, {1, 64}),
                                      test::random_packed(int_grid<4>{}, {67, 300}, {1, 64}),
                                      test::random_packed(e2m1{}, {9, 300}, {1, 32})};
    for (index_t const tokens : {1, 3, 20, 40, 600}) {
        test::inputs const x(tokens, 300);
        for (auto const format : {input_format::f32, input_format::bf16, input_format::int8}) {
            std::vector<std::vector<float>> y;
            std::vector<std::vector<float>> alone;
            for (packed_matrix const& w : matrices) {
                y.emplace_back(static_cast<std::size_t>(tokens * w.extent.rows));
                epilogue after{};
                if (alone.size() == 1) {
                    after = {.function = epilogue_function::silu, .times = alone[0].data(), .times_stride = 300};
                }
                alone.push_back(product_of(w.view(), x, tokens, after, y.back(), format));
            }
            std::vector<matrix_product> products;
            for (std::size_t i = 0; i < y.size(); ++i) {
                products.push_back({matrices[i].view(), y[i].data(), matrices[i].extent.rows});
            }
            products[1].after = {.function = epilogue_function::silu, .times = y[0].data(), .times_stride = 300};
            thread_team two(2);
            kernel::multiply(products, x.x.data(), x.stride, tokens, two, format);
            EXPECT_EQ(y, alone) << tokens << " tokens";
        }
    }
}

} // namespace
