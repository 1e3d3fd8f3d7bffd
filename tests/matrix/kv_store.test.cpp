// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/grid/codebook_grid.hpp"
#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/matrix/kv_store.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

kv_format of_grid(any_grid grid, index_t group, bool centered = false) {
    kv_format format = kv_format::of(std::move(grid), group);
    format.centered = centered;
    return format;
}

std::vector<kv_format> some_formats() {
    return {{},
            {.floats = float_format::f16},
            {.floats = float_format::bf16},
            of_grid(any_grid(int_grid<8>{}, "int8"), 0),
            of_grid(any_grid(int_grid<4>{}, "int4"), 16, true),
            of_grid(any_grid(int_grid<4, zero::none>{}, "int4"), 5, true),
            of_grid(any_grid(e4m3{}, "fp8"), 0),
            of_grid(any_grid(nf4{}, "nf4"), 7)};
}

/// Keys whose channels lie around values of their own.
matrix some_keys(index_t tokens, index_t features, unsigned seed = 1) {
    matrix x = test::random_matrix(tokens, features, seed);
    for (index_t i = 0; i < features; ++i) {
        x.col(i).array() += static_cast<float>(i % 7) - 3;
    }
    return x;
}

/// Appends `x` in pieces of `piece` tokens.
kv_store stored(kv_format const& format, index_t heads, matrix const& x, index_t piece, index_t window = 0) {
    kv_store store("keys", format, heads, x.cols() / heads, window);
    for (index_t t = 0; t < x.rows(); t += piece) {
        store.append(x.middleRows(t, std::min(piece, x.rows() - t)));
    }
    return store;
}

/// What an `activation_quantizer` makes of each head.
matrix rounded(kv_format const& format, matrix const& x, index_t head_dim) {
    activation_quantizer const q(*format.grid, {.width = format.group, .kind = scale_kind::f16});
    matrix y(x.rows(), x.cols());
    for (index_t i = 0; i < x.cols(); i += head_dim) {
        y.middleCols(i, head_dim) = q.round(matrix(x.middleCols(i, head_dim)));
    }
    return y;
}

TEST(kv_store, holds_floats_and_halves) {
    matrix const x = test::random_matrix(40, 3 * 11, 2);
    EXPECT_EQ(stored({}, 3, x, 7).decode(), x);
    EXPECT_EQ(stored({.floats = float_format::f16}, 3, x, 7).decode(),
              x.unaryExpr([](float v) { return static_cast<float>(half(v)); }));
    EXPECT_EQ(stored({.floats = float_format::bf16}, 3, x, 7).decode(),
              x.unaryExpr([](float v) { return static_cast<float>(bfloat16(v)); }));
}

TEST(kv_store, rounds_heads_as_activations_are_rounded) {
    matrix const x = some_keys(20, 2 * 24);
    for (auto const& format : some_formats()) {
        if (format.grid && !format.centered) {
            EXPECT_EQ(stored(format, 2, x, 6).decode(), rounded(format, x, 24)) << format.grid->name();
        }
    }
}

TEST(kv_store, centers_a_block_by_the_mean_of_the_tokens_before) {
    constexpr index_t block = kv_view::centered_tokens;
    auto const format = of_grid(any_grid(int_grid<4>{}, "int4"), 16, true);
    matrix const x = some_keys(3 * block, 2 * 20);
    matrix const got = stored(format, 2, x, 3 * block).decode();
    EXPECT_EQ(got.topRows(block), rounded(format, x.topRows(block), 20)); // nothing is before
    for (index_t b = 1; b < 3; ++b) {
        Eigen::RowVectorXf const mean = got.middleRows((b - 1) * block, block).colwise().mean();
        matrix const centered = x.middleRows(b * block, block).rowwise() - mean;
        matrix const expected = rounded(format, centered, 20).rowwise() + mean;
        // A mean is stored in 8 bits, which the code of a number next to the middle of two may notice.
        EXPECT_LE((got.middleRows(b * block, block) - expected).cwiseAbs().mean(), 0.05F);
        EXPECT_LE((got - x).middleRows(b * block, block).norm(), 0.9F * (got - x).topRows(block).norm());
    }
}

TEST(kv_store, stores_the_same_however_tokens_come) {
    matrix const x = some_keys(150, 2 * 20);
    for (auto const& format : some_formats()) {
        matrix const at_once = stored(format, 2, x, 150).decode();
        for (index_t const piece : {1, 9, 32, 33}) {
            EXPECT_EQ(stored(format, 2, x, piece).decode(), at_once) << piece;
        }
    }
}

TEST(kv_store, goes_back_and_on) {
    matrix const x = some_keys(100, 20);
    matrix const other = some_keys(60, 20, 5);
    for (auto const& format : some_formats()) {
        for (index_t const size : {0, 1, 31, 32, 50, 64, 100, 200}) {
            kv_store store = stored(format, 1, x, 100);
            store.truncate(size);
            index_t const kept = std::min<index_t>(size, 100);
            EXPECT_EQ(store.size(), kept);
            store.append(other);
            matrix both(kept + other.rows(), 20);
            both << x.topRows(kept), other;
            EXPECT_EQ(store.decode(), stored(format, 1, both, 7).decode()) << size;
        }
    }
}

TEST(kv_store, keeps_the_last_tokens_of_a_window) {
    matrix const x = some_keys(200, 2 * 12);
    for (index_t const window : {1, 5, 33, 64, 500}) {
        for (auto const& format : some_formats()) {
            for (index_t const piece : {1, 50}) {
                kv_store const store = stored(format, 2, x, piece, window);
                EXPECT_EQ(store.size(), 200);
                EXPECT_LE(store.first(), std::max<index_t>(0, 200 - window));
                EXPECT_LE(store.size() - store.first(), window + piece);
                matrix const got = store.decode();
                float const steps = format.grid && format.grid->bits() < 8 ? 1.0F : 0.2F;
                EXPECT_LE((got - x.bottomRows(got.rows())).cwiseAbs().maxCoeff(), steps);
                if (!format.centered || window > kv_view::centered_tokens) {
                    EXPECT_EQ(got, stored(format, 2, x, 200).decode().bottomRows(got.rows()));
                }
            }
        }
    }
}

TEST(kv_store, does_not_go_back_before_its_window) {
    kv_store store = stored({}, 1, some_keys(100, 4), 1, 10);
    store.truncate(100);
    EXPECT_EQ(failure_message([&] { store.truncate(50); }),
              "keys: cannot go back to 50 tokens, of which the window has moved on");
    EXPECT_EQ(store.size(), 100);
    store.truncate(0); // but may begin again
    store.append(some_keys(30, 4));
    EXPECT_EQ(store.decode(), stored({}, 1, some_keys(30, 4), 30, 10).decode());
}

TEST(kv_store, stays_as_it_was_when_numbers_are_wrong) {
    matrix const x = some_keys(40, 2 * 8);
    auto const infinity = std::numeric_limits<float>::infinity();
    for (auto const& format : some_formats()) {
        kv_store store = stored(format, 2, x, 40);
        matrix const before = store.decode();
        for (float const bad : {infinity, std::nanf("")}) {
            matrix next = x;
            next(3, 9) = bad;
            EXPECT_EQ(failure_message([&] { store.append(next); }), "keys: that of token 43 and head 1 is not finite");
        }
        EXPECT_THROW(store.append(matrix::Zero(2, 15)), error);
        EXPECT_EQ(store.size(), 40);
        EXPECT_EQ(store.decode(), before);
    }
    kv_store halves("values", {.floats = float_format::f16}, 1, 2);
    EXPECT_EQ(failure_message([&] {
                  halves.append(matrix{{1.0F, 1e6F}});
              }),
              "values: that of token 0 and head 0 is too large for a half");
}

TEST(kv_store, refuses_shapes_it_cannot_hold) {
    EXPECT_THROW(kv_store("keys", {}, 0, 8), error);
    EXPECT_THROW(kv_store("keys", {}, 1, 0), error);
    EXPECT_THROW(kv_store("keys", {}, 1, 8, -1), error);
    EXPECT_THROW(kv_store("keys", of_grid(any_grid(int_grid<4>{}, "int4"), -1), 1, 8), error);
    EXPECT_THROW(kv_store("keys", {}, 1, kv_limits::padded_row + 1), error);
    EXPECT_THROW(kv_store("keys", of_grid(any_grid(int_grid<4>{}, "int4"), 1), 1, kv_limits::groups + 1), error);
}

TEST(kv_store, knows_its_size) {
    kv_store const floats("keys", {}, 2, 64, 0, 10);
    EXPECT_EQ(floats.bits_per_number(), 32);
    EXPECT_EQ(floats.bytes(), 10 * 2 * 64 * 4);
    kv_store const int8("keys", of_grid(any_grid(int_grid<8>{}, "int8"), 0), 2, 64, 0, 10);
    EXPECT_EQ(int8.bits_per_number(), 8 + 32.0 / 64);
    EXPECT_EQ(int8.bytes(), 10 * 2 * (64 + 4));
    kv_store const int4("keys", of_grid(any_grid(int_grid<4>{}, "int4"), 32, true), 2, 64, 0, 64);
    EXPECT_EQ(int4.bits_per_number(), 4 + 32.0 / 32 + 16.0 / 32);
    EXPECT_EQ(int4.bytes(), 2 * (64 * (32 + 8) + 3 * 64 * 2));
}

} // namespace
