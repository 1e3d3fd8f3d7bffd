// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"

namespace detent::inline DETENT_ABI::nn {

/// Options of `adamw`, named as in the papers.
struct adamw_options {
    double learning_rate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0;

    friend bool operator==(adamw_options const&, adamw_options const&) = default;
};

/// All that `adamw` remembers of earlier steps; saved and restored, it goes on with the same bits.
struct adamw_state {
    std::vector<float> first;  ///< running mean of the gradient of each parameter
    std::vector<float> second; ///< running mean of its square
    std::int64_t steps = 0;

    friend bool operator==(adamw_state const&, adamw_state const&) = default;
};

/// Adam (Kingma and Ba, algorithm 1, with bias correction) with decoupled weight decay (Loshchilov and Hutter,
/// algorithm 2, whose schedule multiplier is part of the learning rate here) of one span of parameters:
/// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and the parameter loses
/// learning_rate (m / (1 - beta1^steps) / (sqrt(v / (1 - beta2^steps)) + eps) + weight_decay parameter).
class adamw {
public:
    /// For `parameters` numbers, before the first step.
    explicit adamw(std::size_t parameters, adamw_options const& options = {})
        : adamw(adamw_state{std::vector<float>(parameters), std::vector<float>(parameters), 0}, options) {}
    /// Goes on from a state.
    explicit adamw(adamw_state state, adamw_options const& options = {}) : options_(options), state_(std::move(state)) {
        expect_valid(state_.first.size() == state_.second.size() && state_.steps >= 0, "adamw",
                     "goes on from moments of different sizes, or a negative number of steps");
    }

    adamw_options const& options() const { return options_; }
    adamw_state const& state() const { return state_; }

    /// One step with the learning rate of the options. `Scalar` is the type of the parameters, float; a template, so
    /// that only programs that learn compile it.
    template <class Scalar = float>
    void step(std::span<float> parameters, std::span<float const> gradients, executor_ref executor = {}) {
        step<Scalar>(parameters, gradients, options_.learning_rate, executor);
    }

    /// One step with the learning rate that a schedule says.
    template <class Scalar = float>
    void step(std::span<float> parameters, std::span<float const> gradients, double learning_rate,
              executor_ref executor = {}) {
        expect_valid(parameters.size() == state_.first.size() && gradients.size() == parameters.size(), "adamw",
                     "is for another number of parameters and gradients");
        auto const steps = static_cast<double>(++state_.steps);
        // What does not depend on the parameter, in double: 1 - beta2^steps would cancel in float.
        auto const keep1 = static_cast<float>(options_.beta1), keep2 = static_cast<float>(options_.beta2);
        auto const take1 = static_cast<float>(1 - options_.beta1), take2 = static_cast<float>(1 - options_.beta2);
        auto const rate = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, steps)));
        auto const correction = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, steps)));
        auto const eps = static_cast<float>(options_.eps);
        auto const decay = static_cast<float>(learning_rate * options_.weight_decay);
        executor.for_pieces(static_cast<index_t>(parameters.size()), index_t{1} << 14, [&](index_t begin, index_t end) {
            for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
                float const g = gradients[i];
                float const m = keep1 * state_.first[i] + take1 * g;
                float const v = keep2 * state_.second[i] + take2 * (g * g);
                state_.first[i] = m;
                state_.second[i] = v;
                parameters[i] -= rate * m / (std::sqrt(v) * correction + eps) + decay * parameters[i];
            }
        });
    }

private:
    adamw_options options_;
    adamw_state state_;
};

/// What `clip_norm` answers.
struct clipping {
    double norm = 0;   ///< of all gradients together; not finite where one of them is not
    double factor = 1; ///< gradients times this have at most the norm allowed
};

/// The Euclidean norm of several gradients together, summed in double in an order that the number of workers does not
/// change, and the factor min(1, max_norm / norm) to scale them with (Pascanu et al., On the difficulty of training
/// recurrent neural networks, algorithm 1). It does not touch the gradients.
template <class Scalar = float>
clipping clip_norm(std::span<std::span<float const> const> gradients, double max_norm, executor_ref executor = {}) {
    expect_valid(max_norm > 0, "clip_norm", "needs a largest norm above 0");
    double squares = 0;
    for (std::span<float const> const g : gradients) {
        index_t const piece = index_t{1} << 14;
        dependent<std::vector<double>, Scalar> sums(
            static_cast<std::size_t>(ceil_div(static_cast<index_t>(g.size()), piece)));
        executor.for_pieces(static_cast<index_t>(g.size()), piece, [&](index_t begin, index_t end) {
            double sum = 0;
            for (float const x : g.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))) {
                sum += static_cast<double>(x) * static_cast<double>(x);
            }
            sums[static_cast<std::size_t>(begin / piece)] = sum;
        });
        squares = std::accumulate(sums.begin(), sums.end(), squares);
    }
    double const norm = std::sqrt(squares);
    return {norm, norm > max_norm ? max_norm / norm : 1.0};
}

} // namespace detent::inline DETENT_ABI::nn
