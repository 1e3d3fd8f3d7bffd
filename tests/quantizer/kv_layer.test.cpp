// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/nn/attention.hpp"
#include "detent/quantizer/kv_layer.hpp"
#include "io/failure_message.hpp"
#include "nn/random_matrix.hpp"

namespace {

using namespace detent;

TEST(kv_layer, attends_as_attention_over_the_whole_sequence_does) {
    matrix const q = test::random_matrix(50, 4 * 12, 1);
    matrix const k = test::random_matrix(50, 2 * 12, 2);
    matrix const v = test::random_matrix(50, 2 * 12, 3);
    matrix const expected = nn::attention(q, k, v, {4, 2, 12}, {}, {.scale = 0.3F});
    for (index_t const piece : {1, 7, 50}) {
        kv_layer cache({}, 2, 12);
        for (index_t t = 0; t < 50; t += piece) {
            index_t const n = std::min(piece, 50 - t);
            cache.append(k.middleRows(t, n), v.middleRows(t, n));
            matrix const y = cache.attend(q.middleRows(t, n), {.scale = 0.3F});
            EXPECT_LE((y - expected.middleRows(t, n)).cwiseAbs().maxCoeff(), 1e-5F);
        }
        EXPECT_EQ(cache.size(), 50);
    }
}

TEST(kv_layer, attends_to_what_is_stored) {
    matrix const q = test::random_matrix(3, 2 * 16, 1);
    quantized_cache<int_grid<4>, 16> cache(2, 16);
    cache.append(test::random_matrix(70, 32, 2), test::random_matrix(70, 32, 3));
    matrix const expected = nn::attention(q, cache.keys().decode(), cache.values().decode(), {2, 2, 16}, {.start = 67},
                                          {.scale = 0.25F});
    EXPECT_LE((cache.attend(q, {.scale = 0.25F}) - expected).cwiseAbs().maxCoeff(), 1e-5F);
}

TEST(kv_layer, of_a_grid_stores_in_its_groups) {
    EXPECT_EQ((quantized_cache<int_grid<8>>(2, 64).keys().bits_per_number()), 8.5);
    EXPECT_EQ((quantized_cache<e4m3>(2, 64).keys().bits_per_number()), 8.25);
    EXPECT_EQ((quantized_cache<int_grid<4>, 32>(2, 64).values().bits_per_number()), 5);
}

TEST(kv_layer, centers_keys_only) {
    auto format = kv_format::of(any_grid(int_grid<4>{}, "int4"), 16);
    format.centered = true;
    kv_layer const cache(format, 2, 16);
    EXPECT_TRUE(cache.keys().format().centered);
    EXPECT_FALSE(cache.values().format().centered);
}

TEST(kv_layer, forgets_and_goes_on) {
    matrix const q = test::random_matrix(1, 8, 1);
    matrix const k = test::random_matrix(20, 8, 2);
    matrix const v = test::random_matrix(20, 8, 3);
    kv_layer once({}, 1, 8);
    once.append(k, v);
    kv_layer again({}, 1, 8);
    again.append(k, v);
    again.append(v, k);
    again.truncate(20);
    EXPECT_EQ(again.attend(q, {}), once.attend(q, {}));
}

TEST(kv_layer, stays_as_it_was_when_numbers_are_wrong) {
    kv_layer cache(kv_format::of(any_grid(int_grid<8>{}, "int8")), 2, 4);
    matrix const x = test::random_matrix(5, 8, 1);
    cache.append(x, x);
    matrix bad = x;
    bad(2, 5) = std::nanf("");
    EXPECT_EQ(failure_message([&] { cache.append(bad, x); }), "keys: that of token 7 and head 1 is not finite");
    EXPECT_EQ(failure_message([&] { cache.append(x, bad); }), "values: that of token 7 and head 1 is not finite");
    EXPECT_EQ(failure_message([&] { cache.append(x, x.topRows(4)); }), "values: are of 4 tokens, and keys of 5");
    EXPECT_EQ(failure_message([&] { cache.append(x.leftCols(4), x); }), "keys: have 4 features, not 2 heads of 4");
    EXPECT_EQ(cache.keys().size(), 5);
    EXPECT_EQ(cache.values().size(), 5);
}

TEST(kv_layer, refuses_queries_that_do_not_fit) {
    kv_layer cache({}, 2, 4);
    matrix const x = test::random_matrix(5, 8, 1);
    cache.append(x, x);
    EXPECT_THROW(cache.attend(matrix::Zero(1, 9), {}), error);  // no whole heads
    EXPECT_THROW(cache.attend(matrix::Zero(1, 12), {}), error); // not the same number for each head of keys
    EXPECT_THROW(cache.attend(matrix::Zero(6, 8), {}), error);  // more than there are
    for (float const bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        matrix q = x;
        q(1, 3) = bad;
        EXPECT_EQ(failure_message([&] { cache.attend(q, {}); }), "queries: those of token 1 are not finite");
    }
}

} // namespace
