// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/thread_team.hpp"
#include "detent/nn/router.hpp"
#include "finite_differences.hpp"
#include "random_matrix.hpp"

namespace detent {

using test::matrix64;

namespace {

std::vector<nn::router_form> router_forms(index_t experts) {
    std::vector<float> correction;
    for (index_t e = 0; e < experts; ++e) {
        correction.push_back(e % 2 == 0 ? 0.4F : -0.2F);
    }
    std::vector<nn::router_form> all;
    for (auto const score : {nn::router_score::softmax, nn::router_score::sigmoid}) {
        for (bool const renormalized : {false, true}) {
            all.push_back({1, score, renormalized, 1, {}});
            all.push_back({3, score, renormalized, 2.5, {}});
            all.push_back({3, score, renormalized, 2.5, correction});
            all.push_back({experts, score, renormalized, 0.5, correction});
        }
    }
    return all;
}

/// Scores of one token, in double.
std::vector<double> slow_scores(nn::router_form const& form, matrix64 const& logits, index_t t) {
    std::vector<double> scores;
    double sum = 0;
    for (index_t e = 0; e < logits.cols(); ++e) {
        sum += std::exp(logits(t, e));
    }
    for (index_t e = 0; e < logits.cols(); ++e) {
        scores.push_back(form.score == nn::router_score::softmax ? std::exp(logits(t, e)) / sum
                                                                 : 1 / (1 + std::exp(-logits(t, e))));
    }
    return scores;
}

} // namespace

TEST(router, chooses_and_weighs_as_the_slow_reference) {
    matrix64 const logits = test::random_matrix64(70, 8, 1, 2.0F);
    for (nn::router_form const& form : router_forms(8)) {
        auto const routes = nn::route(form, logits);
        auto const floats = nn::route(form, matrix(logits.cast<float>()));
        EXPECT_EQ(floats.experts, routes.experts);
        for (index_t t = 0; t < logits.rows(); ++t) {
            auto const scores = slow_scores(form, logits, t);
            std::set<index_t> left{0, 1, 2, 3, 4, 5, 6, 7};
            std::vector<index_t> expected;
            double sum = 0;
            for (index_t c = 0; c < form.experts_per_token; ++c) {
                auto const merit = [&](index_t e) {
                    auto const i = static_cast<std::size_t>(e);
                    return scores[i] + (form.correction.empty() ? 0 : double(form.correction[i]));
                };
                index_t best = *left.begin();
                for (index_t const e : left) {
                    best = merit(e) > merit(best) ? e : best;
                }
                left.erase(best);
                expected.push_back(best);
                sum += scores[static_cast<std::size_t>(best)];
            }
            for (index_t c = 0; c < form.experts_per_token; ++c) {
                index_t const e = expected[static_cast<std::size_t>(c)];
                ASSERT_EQ(routes.expert(t, c), e);
                double const weight = form.factor * scores[static_cast<std::size_t>(e)] / (form.renormalized ? sum : 1);
                EXPECT_NEAR(routes.weights(t, c), weight, 1e-14);
                EXPECT_NEAR(floats.weights(t, c), weight, 1e-6);
            }
        }
    }
}

TEST(router, gradients_match_finite_differences) {
    // Logits far enough apart that no step changes a choice.
    for (nn::router_form const& form : router_forms(5)) {
        matrix64 logits(66, 5);
        for (index_t t = 0; t < logits.rows(); ++t) {
            for (index_t e = 0; e < 5; ++e) {
                logits(t, e) = 0.3 * double((e * 2 + t) % 5) - 0.5 + 0.01 * double(t % 7);
            }
        }
        matrix64 const g = test::random_matrix64(66, form.experts_per_token, 2);
        auto const routes = nn::route(form, logits);
        matrix64 const gradient = nn::route_backward<double>(form, logits, routes, g);
        auto const loss = [&] { return test::weighted_sum(nn::route(form, logits).weights, g); };
        if (form.renormalized && form.experts_per_token == 1) { // a weight that does not depend on its logit
            EXPECT_LE(gradient.cwiseAbs().maxCoeff(), 1e-14);
        } else {
            test::expect_gradient(gradient, logits, loss);
            matrix const gradient32 = nn::route_backward<float>(
                form, logits.cast<float>(), nn::route(form, matrix(logits.cast<float>())), matrix(g.cast<float>()));
            test::expect_near(gradient32, gradient, 2e-6);
        }
    }
}

TEST(router, ties_and_extremes) {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    auto const ties = nn::route({2}, matrix{{1, 3, 3, 3}, {0, 0, 0, 0}});
    EXPECT_EQ(ties.experts, (std::vector<std::int32_t>{1, 2, 0, 1}));
    EXPECT_EQ(ties.weights, matrix::Constant(2, 2, 0.5F));
    auto const far = nn::route({2}, matrix{{-1e4F, -2e4F, -3e4F}, {1e4F, -1e4F, 0}});
    EXPECT_EQ(far.weights, (matrix{{1, 0}, {1, 0}}));
    EXPECT_EQ(nn::route({2}, matrix{{nan, 1, 0}}).experts, (std::vector<std::int32_t>{1, 2}));
}

TEST(router, experts_meet_their_tokens) {
    matrix const logits = test::random_matrix(20, 4, 3), x = test::random_matrix(20, 6, 4);
    auto const routes = nn::route({2}, logits);
    auto const groups = nn::tokens_by_expert(routes, 4);
    matrix sums = matrix::Zero(20, 6), expected = matrix::Zero(20, 6);
    std::size_t count = 0;
    for (index_t e = 0; e < 4; ++e) {
        auto const& tokens = groups[static_cast<std::size_t>(e)];
        count += tokens.size();
        for (auto const& [token, choice] : tokens) {
            EXPECT_EQ(routes.expert(token, choice), e);
        }
        matrix const made = nn::rows_of_tokens(x, tokens) * static_cast<float>(e + 1); // what the expert makes
        float_vector const weights = nn::weights_of_tokens(routes, tokens);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            auto const row = static_cast<index_t>(i);
            sums.row(tokens[i].token) += weights(row) * made.row(row);
        }
    }
    EXPECT_EQ(count, 40U);
    for (index_t t = 0; t < 20; ++t) {
        for (index_t c = 0; c < 2; ++c) {
            expected.row(t) += routes.weights(t, c) * static_cast<float>(routes.expert(t, c) + 1) * x.row(t);
        }
    }
    EXPECT_LE((sums - expected).cwiseAbs().maxCoeff(), 1e-5F);
}

TEST(router, no_tokens) {
    matrix const none(0, 4);
    auto const routes = nn::route({2}, none);
    EXPECT_TRUE(routes.experts.empty());
    EXPECT_EQ(nn::tokens_by_expert(routes, 4).size(), 4U);
    EXPECT_EQ(nn::route_backward<float>({2}, none, routes, matrix(0, 2)), none);
}

TEST(router, threads_do_not_change_a_bit) {
    matrix const logits = test::random_matrix(300, 8, 5), g = test::random_matrix(300, 2, 6);
    thread_team one(1), three(3);
    auto const a = nn::route({2}, logits, one), b = nn::route({2}, logits, three);
    EXPECT_EQ(a.experts, b.experts);
    EXPECT_EQ(a.weights, b.weights);
    EXPECT_EQ(nn::route_backward<float>({2}, logits, a, g, one), nn::route_backward<float>({2}, logits, a, g, three));
}

} // namespace detent
