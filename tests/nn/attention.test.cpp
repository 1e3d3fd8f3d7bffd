// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/nn/attention.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

namespace {

matrix slow_attention(matrix const& q, matrix const& k, matrix const& v, nn::attention_heads const& layout,
                      nn::token_rows rows, double scale) {
    index_t const hd = layout.head_dim;
    index_t const length = q.rows() / rows.sequences, keys = k.rows() / rows.sequences;
    matrix context(q.rows(), q.cols());
    for (index_t s = 0; s < rows.sequences; ++s) {
        for (index_t i = 0; i < length; ++i) {
            for (index_t h = 0; h < layout.heads; ++h) {
                index_t const kv = h / (layout.heads / layout.kv_heads);
                std::vector<double> weights;
                double sum = 0;
                for (index_t j = 0; j <= rows.start + i; ++j) {
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
                    context(s * length + i, h * hd + d) = static_cast<float>(mean);
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

#if defined(_OPENMP)
TEST(attention, threads_do_not_change_a_bit) {
    matrix const q = random_matrix(2 * 150, 32, 6), k = random_matrix(2 * 150, 16, 7),
                 v = random_matrix(2 * 150, 16, 8);
    threads one(1), three(3);
    EXPECT_EQ(nn::causal_attention(q, k, v, {4, 2, 8}, {2, 0}, 0.3F, one),
              nn::causal_attention(q, k, v, {4, 2, 8}, {2, 0}, 0.3F, three));
}
#endif

} // namespace detent
