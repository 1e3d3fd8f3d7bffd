// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/attention.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

namespace {

template <class Scalar>
basic_matrix<Scalar> slow_attention(basic_matrix<Scalar> const& q, basic_matrix<Scalar> const& k,
                                    basic_matrix<Scalar> const& v, nn::attention_heads const& layout,
                                    nn::token_rows rows, double scale, bool causal = true) {
    index_t const hd = layout.head_dim;
    index_t const length = q.rows() / rows.sequences, keys = k.rows() / rows.sequences;
    basic_matrix<Scalar> context(q.rows(), q.cols());
    for (index_t s = 0; s < rows.sequences; ++s) {
        for (index_t i = 0; i < length; ++i) {
            for (index_t h = 0; h < layout.heads; ++h) {
                index_t const kv = h / (layout.heads / layout.kv_heads);
                std::vector<double> weights;
                double sum = 0;
                for (index_t j = 0; causal ? j <= rows.start + i : j < keys; ++j) {
                    double score = 0;
                    for (index_t d = 0; d < hd; ++d) {
                        score += double(q(s * length + i, h * hd + d)) * k(s * keys + j, kv * hd + d);
                    }
                    weights.push_back(std::exp(scale * score));
                    sum += weights.back();
                }
                for (index_t d = 0; d < hd; ++d) {
                    double mean = 0;
                    for (std::size_t j = 0; j < weights.size(); ++j) {
                        mean += weights[j] / sum * v(s * keys + static_cast<index_t>(j), kv * hd + d);
                    }
                    context(s * length + i, h * hd + d) = static_cast<Scalar>(mean);
                }
            }
        }
    }
    return context;
}

} // namespace

TEST(attention, matches_the_slow_reference) {
    for (nn::attention_heads const layout : {nn::attention_heads{1, 1, 5}, {4, 4, 8}, {6, 2, 16}}) {
        for (index_t const length : {1, 63, 64, 65, 130}) {
            for (nn::token_rows const rows : {nn::token_rows{1, 0}, {3, 0}, {1, 70}, {2, 3}}) {
                index_t const keys = rows.start + length + 2; // two keys nobody may see
                matrix const q = random_matrix(rows.sequences * length, layout.heads * layout.head_dim, 1);
                matrix const k = random_matrix(rows.sequences * keys, layout.kv_heads * layout.head_dim, 2);
                matrix const v = random_matrix(rows.sequences * keys, layout.kv_heads * layout.head_dim, 3);
                matrix const y = nn::causal_attention(q, k, v, layout, rows, 0.4F);
                matrix const expected = slow_attention(q, k, v, layout, rows, double(0.4F));
                EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 5e-6F) << length << ' ' << rows.start;
            }
        }
    }
}

TEST(attention, large_scores_do_not_overflow) {
    matrix const q = random_matrix(10, 8, 4, 1000.0F);
    matrix const v = random_matrix(10, 8, 5);
    matrix const y = nn::causal_attention(q, q, v, {1, 1, 8}, {}, 1.0F);
    EXPECT_TRUE(y.allFinite());
    EXPECT_LE(y.cwiseAbs().maxCoeff(), v.cwiseAbs().maxCoeff() * 1.00001F);
}

TEST(attention, doubles_match_the_slow_reference) {
    for (index_t const length : {1, 65, 130}) {
        nn::attention_heads const layout{6, 2, 5};
        test::matrix64 const q = test::random_matrix64(2 * length, 30, 9);
        test::matrix64 const k = test::random_matrix64(2 * length, 10, 10);
        test::matrix64 const v = test::random_matrix64(2 * length, 10, 11);
        test::matrix64 const expected = slow_attention(q, k, v, layout, {2, 0}, 0.4);
        EXPECT_LE((nn::causal_attention(q, k, v, layout, {2, 0}, 0.4) - expected).cwiseAbs().maxCoeff(), 1e-13);
    }
}

TEST(attention, without_a_mask_every_query_sees_all_keys_of_its_sequence) {
    auto const mask = nn::attention_mask::bidirectional;
    for (nn::attention_heads const layout : {nn::attention_heads{1, 1, 5}, {4, 4, 8}, {6, 2, 16}}) {
        for (index_t const length : {1, 2, 63, 64, 65, 130}) {
            for (index_t const sequences : {1, 3}) {
                index_t const tokens = sequences * length, width = layout.kv_heads * layout.head_dim;
                nn::token_rows const rows{.sequences = sequences};
                test::matrix64 const q = test::random_matrix64(tokens, layout.heads * layout.head_dim, 26);
                test::matrix64 const k = test::random_matrix64(tokens, width, 27);
                test::matrix64 const v = test::random_matrix64(tokens, width, 28);
                test::matrix64 const expected = slow_attention(q, k, v, layout, rows, 0.4, false);
                EXPECT_LE((nn::attention(q, k, v, layout, rows, 0.4, mask) - expected).cwiseAbs().maxCoeff(), 1e-13);
                matrix const floats = nn::attention(matrix(q.cast<float>()), matrix(k.cast<float>()),
                                                    matrix(v.cast<float>()), layout, rows, 0.4F, mask);
                EXPECT_LE((floats.cast<double>() - expected).cwiseAbs().maxCoeff(), 1e-5) << length;
            }
        }
    }
}

TEST(attention, without_a_mask_there_may_be_more_or_fewer_keys_than_queries) {
    for (index_t const keys : {1, 5, 90}) {
        test::matrix64 const q = test::random_matrix64(2 * 70, 12, 29);
        test::matrix64 const k = test::random_matrix64(2 * keys, 6, 30), v = test::random_matrix64(2 * keys, 6, 31);
        test::matrix64 const expected = slow_attention(q, k, v, {4, 2, 3}, {2, 0}, 0.4, false);
        auto const y = nn::attention(q, k, v, {4, 2, 3}, {2, 0}, 0.4, nn::attention_mask::bidirectional);
        EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 1e-13) << keys;
    }
}

TEST(attention, gradients_match_finite_differences) {
    for (nn::attention_heads const layout : {nn::attention_heads{1, 1, 5}, {3, 3, 4}, {8, 2, 3}}) {
        for (index_t const length : {1, 2, 17, 66}) {
            for (index_t const sequences : {1, 3}) {
                index_t const tokens = sequences * length;
                nn::token_rows const rows{.sequences = sequences};
                test::matrix64 q = test::random_matrix64(tokens, layout.heads * layout.head_dim, 12);
                test::matrix64 k = test::random_matrix64(tokens, layout.kv_heads * layout.head_dim, 13);
                test::matrix64 v = test::random_matrix64(tokens, layout.kv_heads * layout.head_dim, 14);
                test::matrix64 const g = test::random_matrix64(tokens, layout.heads * layout.head_dim, 15);
                auto const gradients = nn::causal_attention_backward(q, k, v, g, layout, rows, 0.4);
                auto const loss = [&] {
                    return test::weighted_sum(nn::causal_attention(q, k, v, layout, rows, 0.4), g);
                };
                index_t const every = length < 17 ? 1 : 37; // of the entries, and of no head or feature only
                if (length > 1) { // one key has the probability 1, whatever its score
                    test::expect_gradient(gradients.q, q, loss, every);
                    test::expect_gradient(gradients.k, k, loss, every);
                } else {
                    EXPECT_LE(gradients.q.cwiseAbs().maxCoeff(), 1e-14);
                    EXPECT_LE(gradients.k.cwiseAbs().maxCoeff(), 1e-14);
                }
                test::expect_gradient(gradients.v, v, loss, every);
            }
        }
    }
}

TEST(attention, float_gradients_match_those_in_double) {
    nn::attention_heads const layout{8, 2, 16};
    matrix const q = random_matrix(2 * 130, 128, 16), k = random_matrix(2 * 130, 32, 17),
                 v = random_matrix(2 * 130, 32, 18), g = random_matrix(2 * 130, 128, 19);
    auto const gradients = nn::causal_attention_backward(q, k, v, g, layout, {2, 0}, 0.25F);
    auto const expected = nn::causal_attention_backward(test::matrix64(q.cast<double>()), k.cast<double>(),
                                                        v.cast<double>(), g.cast<double>(), layout, {2, 0}, 0.25);
    test::expect_near(gradients.q, expected.q, 2e-6);
    test::expect_near(gradients.k, expected.k, 2e-6);
    test::expect_near(gradients.v, expected.v, 2e-6);
}

TEST(attention, gradients_of_large_scores_stay_finite) {
    matrix const q = random_matrix(10, 8, 20, 1000.0F), v = random_matrix(10, 8, 21);
    auto const gradients = nn::causal_attention_backward(q, q, v, v, {1, 1, 8}, {}, 1.0F);
    EXPECT_TRUE(gradients.q.allFinite() && gradients.k.allFinite() && gradients.v.allFinite());
    EXPECT_EQ(gradients.v.row(0).isZero(), false);
}

TEST(attention, no_tokens_have_no_gradients) {
    matrix const none(0, 8);
    EXPECT_EQ(nn::causal_attention(none, none, none, {1, 1, 8}, {}, 1.0F), none);
    EXPECT_EQ(nn::attention(none, none, none, {1, 1, 8}, {}, 1.0F, nn::attention_mask::bidirectional), none);
    EXPECT_EQ(nn::causal_attention_backward(none, none, none, none, {1, 1, 8}, {}, 1.0F).k, none);
}

#if defined(_OPENMP)
TEST(attention, threads_do_not_change_a_bit_of_gradients) {
    matrix const q = random_matrix(2 * 150, 32, 22), k = random_matrix(2 * 150, 16, 23),
                 v = random_matrix(2 * 150, 16, 24), g = random_matrix(2 * 150, 32, 25);
    thread_team one(1);
    auto const alone = nn::causal_attention_backward(q, k, v, g, {4, 2, 8}, {2, 0}, 0.3F, one);
    for (index_t const count : {2, 3}) {
        thread_team more(count);
        auto const together = nn::causal_attention_backward(q, k, v, g, {4, 2, 8}, {2, 0}, 0.3F, more);
        EXPECT_EQ(alone.q, together.q);
        EXPECT_EQ(alone.k, together.k);
        EXPECT_EQ(alone.v, together.v);
    }
}

TEST(attention, threads_do_not_change_a_bit) {
    matrix const q = random_matrix(2 * 150, 32, 6), k = random_matrix(2 * 150, 16, 7),
                 v = random_matrix(2 * 150, 16, 8);
    thread_team one(1), three(3);
    for (auto const mask : {nn::attention_mask::causal, nn::attention_mask::bidirectional}) {
        EXPECT_EQ(nn::attention(q, k, v, {4, 2, 8}, {2, 0}, 0.3F, mask, one),
                  nn::attention(q, k, v, {4, 2, 8}, {2, 0}, 0.3F, mask, three));
    }
}
#endif

} // namespace detent
