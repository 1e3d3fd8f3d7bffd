// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/core/workspace.hpp"
#include "detent/granularity/granularity.hpp"
#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/quantizer/product.hpp"
#include "detent/quantizer/quantized_linear.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "matrix/random_activations.hpp"
#include "matrix/random_map.hpp"
#include "matrix/random_solution.hpp"
#include "matrix/random_weak.hpp"
#include "nn/random_matrix.hpp"

namespace {

std::atomic<long> allocations = 0;

[[gnu::noinline]] void* counted(std::size_t size, std::size_t alignment) {
    ++allocations;
    void* const p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    return p != nullptr ? p : throw std::bad_alloc();
}

} // namespace

// All that is allocated in C++, buffers too, comes through these.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size, 16); }
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return counted(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace detent;
using test::random_matrix;

constexpr index_t all_tokens[] = {1, 2, 5, 9, 16, 17, 40, 512};
constexpr extents all_shape{70, 384};

std::vector<packed_matrix> all_weights() {
    auto const on = [&](auto... grids) {
        return std::vector<packed_matrix>{pack(test::random_solution(grids, all_shape, {1, 64}, 1))...};
    };
    auto all = on(int_grid<2>{}, int_grid<3>{}, int_grid<4>{}, int_grid<8>{}, e2m1{}, nf4{}, e4m3{});
    all.push_back(all[2]);
    all.back().map = test::random_map("pdh", all_shape.cols, 128);
    solution weak = test::random_solution(int_grid<4>{}, all_shape, {1, 64}, 1);
    test::weaken(weak, int_grid<4>{}, test::random_columns(all_shape.cols, 4, 3), float_format::f16);
    all.push_back(pack(weak));
    return all;
}

/// Runs `f(tokens)` for all numbers of tokens twice; answers what the second time allocated.
template <class F> long allocated_again(F const& f) {
    for (index_t const tokens : all_tokens) {
        f(tokens);
    }
    long const before = allocations;
    for (index_t const tokens : all_tokens) {
        f(tokens);
    }
    return allocations - before;
}

/// Calls of `multiply` with these weights, a workspace and each format allocate nothing after the first.
void expect_no_allocations(std::span<packed_matrix const> weights, executor_ref executor) {
    workspace memory;
    matrix const x = random_matrix(512, all_shape.cols, 2);
    matrix y(512, all_shape.rows);
    matrix z(512, all_shape.rows);
    for (packed_matrix const& w : weights) {
        for (auto const format : {input_format::f32, input_format::bf16, input_format::int8}) {
            long const count = allocated_again([&](index_t tokens) {
                multiply(w, x.topRows(tokens), y.topRows(tokens), executor.with_memory(memory), format);
                epilogue const after{
                    .function = epilogue_function::silu, .plus = y.data(), .plus_stride = all_shape.rows};
                packed_product const both[] = {{w, z.topRows(tokens)}, {w, y.topRows(tokens), after}};
                multiply(both, x.topRows(tokens), executor.with_memory(memory), format);
            });
            EXPECT_EQ(count, 0) << w.bits << " bits, inputs " << static_cast<int>(format);
        }
    }
    EXPECT_GT(memory.size(), 0);
}

TEST(workspace, allocates_nothing_after_the_first_call) { expect_no_allocations(all_weights(), {}); }

TEST(workspace, allocates_nothing_with_threads) {
    thread_team two(2);
    long const before = allocations;
    two.for_each(2, [](index_t) {});
    if (allocations > before) { // OpenMP allocates by itself, in another way
        GTEST_SKIP();
    }
    auto const all = all_weights();
    expect_no_allocations(std::span(all).last(2), two); // one with a map, one with weak columns
}

TEST(workspace, allocates_nothing_for_codes_with_codes) {
    workspace memory;
    executor_ref const executor = executor_ref().with_memory(memory);
    matrix y(512, all_shape.rows);
    for (packed_matrix const& w : all_weights()) {
        for (bool const shifted : {false, true}) {
            for (index_t const tokens : all_tokens) {
                auto const x = test::random_activations(e2m1{}, {tokens, all_shape.cols}, true, shifted ? 3 : 0, 2,
                                                        shifted ? 0 : 32);
                multiply(w, x, y.topRows(tokens), executor);
                long const before = allocations;
                multiply(w, x, y.topRows(tokens), executor);
                EXPECT_EQ(allocations, before) << w.bits << " bits, " << tokens << " tokens";
            }
        }
    }
}

TEST(workspace, allocates_nothing_where_inputs_are_rounded) {
    activation_quantizer const all[] = {
        activation_quantizer(any_grid(int_grid<8>{})),
        activation_quantizer(any_grid(int_grid<8, zero::free>{})),
        activation_quantizer(any_grid(e2m1{}), {.width = 32, .kind = scale_kind::e8m0}),
        activation_quantizer(any_grid(e2m1{}), {.width = 16, .kind = scale_kind::ue4m3}),
        activation_quantizer(any_grid(e4m3{}), tile_scale{0.01F, 0}),
        activation_quantizer(any_grid(int_grid<4>{}), tile_scale{0.01F, 0}, std::vector<std::int8_t>(384, 2)),
    };
    workspace memory;
    executor_ref const executor = executor_ref().with_memory(memory);
    matrix const x = random_matrix(512, all_shape.cols, 2);
    matrix y(512, all_shape.rows);
    matrix z(512, all_shape.rows);
    auto const weights = all_weights();
    for (std::size_t i = 0; i < std::size(all); ++i) {
        for (packed_matrix const& w : {weights[1], weights[5], weights[7], weights[8]}) {
            long const count = allocated_again([&](index_t tokens) {
                multiply(w, all[i], x.topRows(tokens), y.topRows(tokens), executor);
                packed_product const both[] = {{w, y.topRows(tokens)}, {w, z.topRows(tokens)}};
                multiply(both, all[i], x.topRows(tokens), executor);
            });
            EXPECT_EQ(count, 0) << w.bits << " bits, quantizer " << i;
        }
    }
}

TEST(workspace, serves_a_quantized_linear) {
    matrix const w = random_matrix(all_shape.rows, all_shape.cols, 1);
    quantized_linear const layer(quantizer<int_grid<4>, per_group<128>>{}(w),
                                 activation_quantizer(any_grid(int_grid<8>{})));
    workspace memory;
    executor_ref const executor = executor_ref().with_memory(memory);
    matrix const x = random_matrix(512, all_shape.cols, 2);
    matrix y(512, all_shape.rows);
    EXPECT_EQ(allocated_again([&](index_t tokens) { layer(x.topRows(tokens), y.topRows(tokens), executor); }), 0);
    EXPECT_EQ(y, layer(x));
}

TEST(workspace, changes_no_bit) {
    workspace memory;
    for (packed_matrix const& w : all_weights()) {
        for (index_t const tokens : all_tokens) {
            matrix const x = random_matrix(tokens, all_shape.cols, 2);
            matrix y(tokens, all_shape.rows);
            matrix expected(tokens, all_shape.rows);
            for (auto const format : {input_format::f32, input_format::bf16, input_format::int8}) {
                multiply(w, x, expected, {}, format);
                multiply(w, x, y, executor_ref().with_memory(memory), format);
                EXPECT_EQ(y, expected);
            }
        }
    }
}

TEST(workspace, grows_and_keeps_what_was_taken_where_it_is) {
    workspace memory;
    EXPECT_EQ(memory.size(), 0);
    {
        scratch some(executor_ref().with_memory(memory));
        auto* const a = some.take<float>(10);
        a[9] = 1;
        auto* const b = some.take<float>(1000000);
        b[999999] = 2;
        EXPECT_EQ(a[9], 1);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b) % 64, 0U);
    }
    index_t const size = memory.size();
    EXPECT_GE(size, 4000000);
    scratch again(executor_ref().with_memory(memory));
    again.take<float>(10);
    again.take<float>(1000000);
    EXPECT_EQ(memory.size(), size);
}

/// Runs another product in the thread that waits for each iteration of a loop, as a pool that steals work does.
struct stealing_executor {
    packed_matrix const* other;
    matrix const* x;
    matrix const* expected;
    mutable index_t stolen = 0;

    index_t workers() const { return 3; }
    void for_each(index_t n, function_ref<void(index_t)> f) const {
        for (index_t i = 0; i < n; ++i) {
            matrix y(x->rows(), other->shape().rows);
            multiply(*other, *x, y);
            EXPECT_EQ(y, *expected);
            ++stolen;
            f(i);
        }
    }
};

TEST(workspace, products_run_inside_of_each_other) {
    auto const all = all_weights();
    for (index_t const tokens : {1, 5, 40}) {
        matrix const x = random_matrix(tokens, all_shape.cols, 2);
        matrix const other_x = random_matrix(tokens, all_shape.cols, 7);
        for (packed_matrix const& w : all) {
            matrix expected(tokens, all_shape.rows);
            matrix other_expected(tokens, all_shape.rows);
            multiply(all[3], other_x, other_expected);
            for (auto const format : {input_format::f32, input_format::bf16, input_format::int8}) {
                multiply(w, x, expected, {}, format);
                stealing_executor const executor{&all[3], &other_x, &other_expected};
                matrix y(tokens, all_shape.rows);
                multiply(w, x, y, executor, format);
                EXPECT_EQ(y, expected);
                workspace memory;
                y.setZero();
                multiply(w, x, y, executor_ref(executor).with_memory(memory), format);
                EXPECT_EQ(y, expected);
                EXPECT_GT(executor.stolen, 0);
            }
        }
    }
}

TEST(stored_inputs, have_the_bits_of_their_floats) {
    packed_matrix const w = all_weights()[7]; // with a map
    for (index_t const tokens : {1, 7, 600}) {
        matrix x = random_matrix(tokens, all_shape.cols, 2);
        std::vector<half> halves;
        for (index_t i = 0; i < x.size(); ++i) {
            halves.emplace_back(x.data()[i]);
            x.data()[i] = static_cast<float>(halves.back());
        }
        matrix y(tokens, all_shape.rows);
        matrix expected(tokens, all_shape.rows);
        stored_inputs const stored{reinterpret_cast<std::uint8_t const*>(halves.data()),
                                   float_format::f16,
                                   {tokens, all_shape.cols},
                                   all_shape.cols};
        packed_product const product(w, y);
        multiply({&product, 1}, stored);
        for (index_t t = 0; t < tokens; t += 512) { // as many at a time
            index_t const n = std::min<index_t>(512, tokens - t);
            multiply(w, x.middleRows(t, n), expected.middleRows(t, n));
        }
        EXPECT_EQ(y, expected);
    }
}

TEST(borrowed_views, are_checked) {
    packed_matrix const w = all_weights()[2];
    matrix const x = random_matrix(2, all_shape.cols, 2);
    matrix y(2, all_shape.rows);
    matrix expected(2, all_shape.rows);
    multiply(w.view(), x, y);
    multiply(w, x, expected);
    EXPECT_EQ(y, expected);
    matrix narrow(2, all_shape.rows - 1);
    EXPECT_THROW(multiply(w.view(), x, narrow), error);
}

} // namespace
