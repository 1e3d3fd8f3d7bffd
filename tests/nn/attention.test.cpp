// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/attention.hpp"
#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::random_matrix;

namespace {

auto const bidirectional = nn::attention_mask::bidirectional;

nn::attention_form form_of(double scale, nn::attention_mask mask = nn::attention_mask::causal) {
    nn::attention_form form;
    form.mask = mask;
    form.scale = scale;
    return form;
}

template <class Scalar>
basic_matrix<Scalar> slow_attention(basic_matrix<Scalar> const& q, basic_matrix<Scalar> const& k,
                                    basic_matrix<Scalar> const& v, nn::attention_heads const& layout,
                                    nn::token_rows rows, nn::attention_form const& form) {
    index_t const hd = layout.head_dim;
    index_t const length = q.rows() / rows.sequences, keys = k.rows() / rows.sequences;
    bool const causal = form.mask == nn::attention_mask::causal;
    index_t const first_key = causal ? rows.start + length - keys : 0; // its position
    basic_matrix<Scalar> context(q.rows(), q.cols());
    for (index_t s = 0; s < rows.sequences; ++s) {
        for (index_t i = 0; i < length; ++i) {
            for (index_t h = 0; h < layout.heads; ++h) {
                index_t const kv = h / (layout.heads / layout.kv_heads), at = rows.start + i;
                std::vector<double> weights;
                double sum = form.sinks.empty() ? 0 : std::exp(double(form.sinks[std::size_t(h)]));
                for (index_t j = 0; j < keys; ++j) {
                    index_t const place = first_key + j;
                    bool const seen = !causal || (place <= at && (form.window == 0 || place > at - form.window));
                    double score = 0;
                    for (index_t d = 0; d < hd; ++d) {
                        score += double(q(s * length + i, h * hd + d)) * k(s * keys + j, kv * hd + d);
                    }
                    score *= form.scale;
                    score = form.soft_cap > 0 ? form.soft_cap * std::tanh(score / form.soft_cap) : score;
                    score += form.slopes.empty() ? 0 : double(form.slopes[std::size_t(h)]) * double(place - at);
                    weights.push_back(seen ? std::exp(score) : 0.0);
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

/// Every part of a form alone and all together, for `heads` heads.
std::vector<nn::attention_form> forms(index_t heads) {
    std::vector<float> slopes, sinks;
    for (index_t h = 0; h < heads; ++h) {
        slopes.push_back(0.5F / static_cast<float>(h + 1));
        sinks.push_back(static_cast<float>(h) - 1.5F);
    }
    std::vector<nn::attention_form> all(8, form_of(0.4));
    all[1].window = 1;
    all[2].window = 20;
    all[3].soft_cap = 1.5;
    all[4].slopes = slopes;
    all[5].sinks = sinks;
    all[6] = all[7] = form_of(0.4, nn::attention_mask::bidirectional);
    all[7].soft_cap = 2;
    all[7].slopes = slopes;
    all[7].sinks = sinks;
    all.push_back(all[7]);
    all.back().mask = nn::attention_mask::causal;
    all.back().window = 7;
    return all;
}

} // namespace

TEST(attention, matches_the_slow_reference) {
    for (nn::attention_heads const layout : {nn::attention_heads{1, 1, 5}, {4, 4, 8}, {6, 2, 16}}) {
        for (index_t const length : {1, 63, 64, 65, 130}) {
            for (nn::token_rows const rows : {nn::token_rows{1, 0}, {3, 0}, {1, 70}, {2, 3}}) {
                index_t const keys = rows.start + length;
                matrix const q = random_matrix(rows.sequences * length, layout.heads * layout.head_dim, 1);
                matrix const k = random_matrix(rows.sequences * keys, layout.kv_heads * layout.head_dim, 2);
                matrix const v = random_matrix(rows.sequences * keys, layout.kv_heads * layout.head_dim, 3);
                matrix const y = nn::attention(q, k, v, layout, rows, form_of(0.4F));
                matrix const expected = slow_attention(q, k, v, layout, rows, form_of(double(0.4F)));
                EXPECT_LE((y - expected).cwiseAbs().maxCoeff(), 5e-6F) << length << ' ' << rows.start;
            }
        }
    }
}

TEST(attention, every_form_matches_the_slow_reference) {
    nn::attention_heads const layout{6, 2, 5};
    for (nn::attention_form const& form : forms(layout.heads)) {
        for (index_t const length : {1, 2, 65, 150}) {
            for (index_t const start : {0, 33}) {
                nn::token_rows const rows{2, start};
                index_t const all = rows.start + length;
                // All keys, or no more than windows show.
                index_t const fewest = form.window > 0 ? std::min(all, length + form.window - 1) : all;
                for (index_t const keys : {all, fewest}) {
                    test::matrix64 const q = test::random_matrix64(2 * length, 30, 40),
                                         k = test::random_matrix64(2 * keys, 10, 41),
                                         v = test::random_matrix64(2 * keys, 10, 42);
                    test::matrix64 const expected = slow_attention(q, k, v, layout, rows, form);
                    EXPECT_LE((nn::attention(q, k, v, layout, rows, form) - expected).cwiseAbs().maxCoeff(), 1e-12);
                    matrix const floats = nn::attention(matrix(q.cast<float>()), matrix(k.cast<float>()),
                                                        matrix(v.cast<float>()), layout, rows, form);
                    EXPECT_LE((floats.cast<double>() - expected).cwiseAbs().maxCoeff(), 1e-5) << length;
                }
            }
        }
    }
}

TEST(attention, gradients_of_every_form_match_finite_differences) {
    nn::attention_heads const layout{4, 2, 3};
    for (nn::attention_form form : forms(layout.heads)) {
        for (index_t const length : {5, 66}) {
            for (index_t const start : {0, 3}) {
                nn::token_rows const rows{2, start};
                index_t const keys =
                    form.window > 0 ? std::min(start + length, length + form.window - 1) : start + length;
                test::matrix64 q = test::random_matrix64(2 * length, 12, 43),
                               k = test::random_matrix64(2 * keys, 6, 44), v = test::random_matrix64(2 * keys, 6, 45);
                test::matrix64 const g = test::random_matrix64(2 * length, 12, 46);
                auto const gradients = nn::attention_backward(q, k, v, g, layout, rows, form);
                auto const loss = [&] { return test::weighted_sum(nn::attention(q, k, v, layout, rows, form), g); };
                index_t const every = length == 5 ? 1 : 149;
                if (form.window == 1) { // one key has the probability 1, whatever its score
                    EXPECT_LE(gradients.q.cwiseAbs().maxCoeff(), 1e-14);
                } else {
                    test::expect_gradient(gradients.q, q, loss, every);
                    test::expect_gradient(gradients.k, k, loss, every);
                }
                test::expect_gradient(gradients.v, v, loss, every);
                ASSERT_EQ(gradients.sinks.size(), static_cast<index_t>(form.sinks.size()));
                for (std::size_t h = 0; h < form.sinks.size(); ++h) { // a float, so by a step that it can take
                    float const before = form.sinks[h], step = 0.0078125F;
                    auto const at = [&](float change) {
                        form.sinks[h] = before + change;
                        return loss();
                    };
                    double const slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
                    form.sinks[h] = before;
                    EXPECT_NEAR(gradients.sinks(static_cast<index_t>(h)), slope, 1e-6 * (1 + std::abs(slope)));
                }
            }
        }
    }
}

TEST(attention, keys_outside_of_every_window_are_not_read) {
    index_t const length = 300;
    nn::attention_form form = form_of(0.4);
    form.window = 10;
    matrix q = random_matrix(1, 8, 47), k = random_matrix(length, 8, 48);
    k.topRows(length - 10).setConstant(std::numeric_limits<float>::quiet_NaN());
    EXPECT_TRUE(nn::attention(q, k, k, {1, 1, 8}, {.start = length - 1}, form).allFinite());
}

TEST(attention, large_scores_do_not_overflow) {
    matrix const q = random_matrix(10, 8, 4, 1000.0F);
    matrix const v = random_matrix(10, 8, 5);
    matrix const y = nn::attention(q, q, v, {1, 1, 8}, {}, form_of(1.0F));
    EXPECT_TRUE(y.allFinite());
    EXPECT_LE(y.cwiseAbs().maxCoeff(), v.cwiseAbs().maxCoeff() * 1.00001F);
}

TEST(attention, doubles_match_the_slow_reference) {
    for (index_t const length : {1, 65, 130}) {
        nn::attention_heads const layout{6, 2, 5};
        test::matrix64 const q = test::random_matrix64(2 * length, 30, 9);
        test::matrix64 const k = test::random_matrix64(2 * length, 10, 10);
        test::matrix64 const v = test::random_matrix64(2 * length, 10, 11);
        test::matrix64 const expected = slow_attention(q, k, v, layout, {2, 0}, form_of(0.4));
        EXPECT_LE((nn::attention(q, k, v, layout, {2, 0}, form_of(0.4)) - expected).cwiseAbs().maxCoeff(), 1e-13);
    }
}

TEST(attention, without_a_mask_every_query_sees_all_keys_of_its_sequence) {
    for (nn::attention_heads const layout : {nn::attention_heads{1, 1, 5}, {4, 4, 8}, {6, 2, 16}}) {
        for (index_t const length : {1, 2, 63, 64, 65, 130}) {
            for (index_t const sequences : {1, 3}) {
                index_t const tokens = sequences * length, width = layout.kv_heads * layout.head_dim;
                nn::token_rows const rows{.sequences = sequences};
                test::matrix64 const q = test::random_matrix64(tokens, layout.heads * layout.head_dim, 26);
                test::matrix64 const k = test::random_matrix64(tokens, width, 27);
                test::matrix64 const v = test::random_matrix64(tokens, width, 28);
                test::matrix64 const expected = slow_attention(q, k, v, layout, rows, form_of(0.4, bidirectional));
                EXPECT_LE((nn::attention(q, k, v, layout, rows, form_of(0.4, bidirectional)) - expected)
                              .cwiseAbs()
                              .maxCoeff(),
                          1e-13);
                matrix const floats =
                    nn::attention(matrix(q.cast<float>()), matrix(k.cast<float>()), matrix(v.cast<float>()), layout,
                                  rows, form_of(0.4F, bidirectional));
                EXPECT_LE((floats.cast<double>() - expected).cwiseAbs().maxCoeff(), 1e-5) << length;
            }
        }
    }
}

TEST(attention, without_a_mask_there_may_be_more_or_fewer_keys_than_queries) {
    for (index_t const keys : {1, 5, 90}) {
        test::matrix64 const q = test::random_matrix64(2 * 70, 12, 29);
        test::matrix64 const k = test::random_matrix64(2 * keys, 6, 30), v = test::random_matrix64(2 * keys, 6, 31);
        test::matrix64 const expected = slow_attention(q, k, v, {4, 2, 3}, {2, 0}, form_of(0.4, bidirectional));
        auto const y = nn::attention(q, k, v, {4, 2, 3}, {2, 0}, form_of(0.4, bidirectional));
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
                auto const gradients = nn::attention_backward(q, k, v, g, layout, rows, form_of(0.4));
                auto const loss = [&] {
                    return test::weighted_sum(nn::attention(q, k, v, layout, rows, form_of(0.4)), g);
                };
                index_t const every = length < 17 ? 1 : 37; // of the entries, and of no head or feature only
                if (length > 1) {                           // one key has the probability 1, whatever its score
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
    auto const gradients = nn::attention_backward(q, k, v, g, layout, {2, 0}, form_of(0.25F));
    auto const expected = nn::attention_backward(test::matrix64(q.cast<double>()), k.cast<double>(), v.cast<double>(),
                                                 g.cast<double>(), layout, {2, 0}, form_of(0.25));
    test::expect_near(gradients.q, expected.q, 2e-6);
    test::expect_near(gradients.k, expected.k, 2e-6);
    test::expect_near(gradients.v, expected.v, 2e-6);
}

TEST(attention, gradients_of_large_scores_stay_finite) {
    matrix const q = random_matrix(10, 8, 20, 1000.0F), v = random_matrix(10, 8, 21);
    auto const gradients = nn::attention_backward(q, q, v, v, {1, 1, 8}, {}, form_of(1.0F));
    EXPECT_TRUE(gradients.q.allFinite() && gradients.k.allFinite() && gradients.v.allFinite());
    EXPECT_EQ(gradients.v.row(0).isZero(), false);
}

TEST(attention, no_tokens_have_no_gradients) {
    matrix const none(0, 8);
    EXPECT_EQ(nn::attention(none, none, none, {1, 1, 8}, {}, form_of(1.0F)), none);
    EXPECT_EQ(nn::attention(none, none, none, {1, 1, 8}, {}, form_of(1.0F, bidirectional)), none);
    EXPECT_EQ(nn::attention_backward(none, none, none, none, {1, 1, 8}, {}, form_of(1.0F)).k, none);
}

TEST(attention, threads_do_not_change_a_bit_of_gradients) {
    matrix const q = random_matrix(2 * 150, 32, 22), k = random_matrix(2 * 150, 16, 23),
                 v = random_matrix(2 * 150, 16, 24), g = random_matrix(2 * 150, 32, 25);
    thread_team one(1);
    auto const alone = nn::attention_backward(q, k, v, g, {4, 2, 8}, {2, 0}, form_of(0.3F), one);
    for (index_t const count : {2, 3}) {
        thread_team more(count);
        auto const together = nn::attention_backward(q, k, v, g, {4, 2, 8}, {2, 0}, form_of(0.3F), more);
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
        EXPECT_EQ(nn::attention(q, k, v, {4, 2, 8}, {2, 0}, form_of(0.3F, mask), one),
                  nn::attention(q, k, v, {4, 2, 8}, {2, 0}, form_of(0.3F, mask), three));
    }
}

} // namespace detent
