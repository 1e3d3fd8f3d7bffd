// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/nn/softmax.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI::nn {

/// What a router makes of its logits before it chooses experts: their softmax over all experts, or each one's sigmoid.
enum class router_score { softmax, sigmoid };

/// How a router chooses experts for a token, and how their outputs are weighted. A softmax over the logits of the
/// chosen experts only is the renormalized softmax over all of them.
///
/// | model | form |
/// |---|---|
/// | Mixtral, Granite, gpt-oss | {k, softmax, renormalized} |
/// | Qwen3-MoE, OLMoE | {k, softmax, norm_topk_prob} |
/// | DeepSeek V3 with one group, GLM-4 | {k, sigmoid, norm_topk_prob, routed_scaling_factor, e_score_correction_bias} |
struct router_form {
    index_t experts_per_token = 2;
    router_score score = router_score::softmax;
    bool renormalized = true;      ///< scores of the chosen experts are divided by their sum
    double factor = 1;             ///< of the weights, after that
    std::vector<float> correction = {}; ///< one per expert: added to scores for the choice only; or none
};

/// Which experts each token meets and with what weights, in the order of falling scores. Equal scores are in the order
/// of the experts.
template <class Scalar> struct expert_routes {
    std::vector<std::int32_t> experts; ///< (token, choice), row by row
    basic_matrix<Scalar> weights;      ///< (token, choice)

    index_t expert(index_t token, index_t choice) const {
        return experts[static_cast<std::size_t>(token * weights.cols() + choice)];
    }
};

/// Scores of all experts, (token, expert), given the `logits`.
template <class Scalar>
basic_matrix<Scalar> router_scores(router_form const& form, basic_matrix<Scalar> logits, executor_ref executor = {}) {
    if (form.score == router_score::softmax) {
        return softmax(std::move(logits), executor);
    }
    logits = (Scalar(1) + (-logits.array()).exp()).inverse();
    return logits;
}

/// Chooses the experts of every token and weighs them, given the `logits` (token, expert) of the router. A logit that
/// is NaN is chosen last.
template <class Scalar>
expert_routes<Scalar> route(router_form const& form, basic_matrix<Scalar> const& logits, executor_ref executor = {}) {
    index_t const tokens = logits.rows(), experts = logits.cols(), chosen = form.experts_per_token;
    DETENT_EXPECTS(chosen > 0 && chosen <= experts);
    DETENT_EXPECTS(form.correction.empty() || static_cast<index_t>(form.correction.size()) == experts);
    basic_matrix<Scalar> const scores = router_scores(form, logits, executor); // (token, expert)
    expert_routes<Scalar> routes{std::vector<std::int32_t>(static_cast<std::size_t>(tokens * chosen)),
                                 basic_matrix<Scalar>(tokens, chosen)};
    executor.for_pieces(tokens, rows_per_piece, [&](index_t begin, index_t end) {
        std::vector<Scalar> merit(static_cast<std::size_t>(experts));
        std::vector<std::int32_t> order(merit.size());
        for (index_t t = begin; t < end; ++t) {
            for (std::size_t e = 0; e < merit.size(); ++e) {
                // Without a correction logits are in the same order as scores and not rounded to equal ones.
                auto const expert = static_cast<index_t>(e);
                merit[e] = form.correction.empty() ? logits(t, expert)
                                                   : scores(t, expert) + static_cast<Scalar>(form.correction[e]);
                merit[e] = std::isnan(merit[e]) ? -std::numeric_limits<Scalar>::infinity() : merit[e];
                order[e] = static_cast<std::int32_t>(e);
            }
            auto const better = [&](std::int32_t a, std::int32_t b) {
                Scalar const of_a = merit[static_cast<std::size_t>(a)], of_b = merit[static_cast<std::size_t>(b)];
                return of_a > of_b || (of_a == of_b && a < b);
            };
            std::partial_sort(order.begin(), order.begin() + chosen, order.end(), better);
            std::copy_n(order.begin(), chosen, routes.experts.begin() + t * chosen);
            auto weights = routes.weights.row(t).array();
            bool const exponents = form.renormalized && form.score == router_score::softmax;
            for (index_t c = 0; c < chosen; ++c) {
                weights(c) = (exponents ? logits : scores)(t, routes.expert(t, c));
            }
            if (exponents) { // the quotients of probabilities that may be 0 all
                weights = (weights - weights.maxCoeff()).exp();
            }
            if (form.renormalized) {
                // As little as DeepSeek adds: scores that are all 0 stay so.
                weights /= weights.sum() + Scalar(1e-20);
            }
            weights *= static_cast<Scalar>(form.factor);
        }
    });
    return routes;
}

/// The gradient with respect to the logits, (token, expert), given that with respect to the weights of `routes`,
/// (token, choice). The choice counts as a constant.
template <class Scalar>
basic_matrix<Scalar> route_backward(router_form const& form, basic_matrix<Scalar> const& logits,
                                    expert_routes<Scalar> const& routes, basic_matrix_view<Scalar> g,
                                    executor_ref executor = {}) {
    DETENT_EXPECTS(shape_of(g) == shape_of(routes.weights) && g.rows() == logits.rows());
    bool const is_softmax = form.score == router_score::softmax;
    basic_matrix<Scalar> const scores = router_scores(form, logits, executor); // (token, expert)
    basic_matrix<Scalar> gradient = basic_matrix<Scalar>::Zero(logits.rows(), logits.cols());
    executor.for_pieces(logits.rows(), rows_per_piece, [&](index_t begin, index_t end) {
        auto const factor = static_cast<Scalar>(form.factor);
        basic_matrix<Scalar> chosen(1, g.cols());
        for (index_t t = begin; t < end; ++t) {
            Scalar sum(0); // of the chosen scores
            for (index_t c = 0; c < g.cols(); ++c) {
                chosen(c) = scores(t, routes.expert(t, c));
                sum += chosen(c);
            }
            // Weights before the factor are chosen / sum; what they have in common falls out.
            Scalar const common = form.renormalized ? g.row(t).dot(routes.weights.row(t)) : Scalar(0);
            Scalar along(0); // of the softmax: the sum of score times its gradient
            for (index_t c = 0; c < g.cols(); ++c) {
                Scalar const score = chosen(c);
                Scalar with_respect; // to the score, times the score
                if (form.renormalized && is_softmax) {
                    with_respect = routes.weights(t, c) * (g(t, c) - common / factor);
                } else if (form.renormalized) {
                    with_respect = (g(t, c) * factor - common) * score / (sum + Scalar(1e-20));
                } else {
                    with_respect = g(t, c) * factor * score;
                }
                gradient(t, routes.expert(t, c)) = is_softmax ? with_respect : with_respect * (Scalar(1) - score);
                along += with_respect;
            }
            if (is_softmax && !form.renormalized) {
                gradient.row(t) -= along * scores.row(t);
            }
        }
    });
    return gradient;
}

/// A token that an expert meets, and which of the token's choices the expert is.
struct routed_token {
    index_t token = 0;
    index_t choice = 0;

    friend bool operator==(routed_token const&, routed_token const&) = default;
};

/// The tokens of each of `experts` experts, in their order.
template <class Scalar>
std::vector<std::vector<routed_token>> tokens_by_expert(expert_routes<Scalar> const& routes, index_t experts) {
    std::vector<std::vector<routed_token>> groups(static_cast<std::size_t>(experts));
    for (index_t t = 0; t < routes.weights.rows(); ++t) {
        for (index_t c = 0; c < routes.weights.cols(); ++c) {
            groups[static_cast<std::size_t>(routes.expert(t, c))].push_back({t, c});
        }
    }
    return groups;
}

/// The rows of `x`, (token, feature), of the tokens of one expert.
template <class X>
basic_matrix<scalar_of<X>> rows_of_tokens(Eigen::MatrixBase<X> const& x, std::vector<routed_token> const& tokens) {
    basic_matrix<scalar_of<X>> rows(static_cast<index_t>(tokens.size()), x.cols());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        rows.row(static_cast<index_t>(i)) = x.row(tokens[i].token);
    }
    return rows;
}

/// The weights in `routes` of the tokens of one expert.
template <class Scalar>
basic_vector<Scalar> weights_of_tokens(expert_routes<Scalar> const& routes, std::vector<routed_token> const& tokens) {
    basic_vector<Scalar> weights(static_cast<index_t>(tokens.size()));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        weights(static_cast<index_t>(i)) = routes.weights(tokens[i].token, tokens[i].choice);
    }
    return weights;
}

} // namespace detent::inline DETENT_ABI::nn
