// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/router.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

/// Gradients with respect to the norms of what the two branches read, which transforms change; none of those that are
/// not asked for.
template <class Scalar> struct norm_gradients { std::optional<basic_norm_layer<Scalar>> attention, mlp; };

/// Goes back through a block; `take(place, input, g)` is shown each linear layer's input and the gradient with respect
/// to what it made, from the last to the first.
template <class Layer, class Scalar, class Take> class block_backward {
public:
    block_backward(basic_block<Layer> const& b, block_tape<Scalar>& tape, nn::token_rows rows, Take const& take,
                   norm_gradients<Scalar>* norms, executor_ref executor)
        : b_(b), tape_(tape), rows_(rows), take_(take), norms_(norms), executor_(executor) {}

    /// The gradient with respect to the hidden state `x` before the block, given that with respect to the one after it.
    basic_matrix<Scalar> run(basic_matrix_view<Scalar> x, basic_matrix<Scalar> g) {
        auto [from_mlp_branch, to_middle] = leave_branch(b_.mlp_norms, tape_.mlp_branch, tape_.mlp_sum, std::move(g));
        basic_matrix<Scalar> const mlp = through_mlp(from_mlp_branch); // to what the networks read
        basic_matrix_view<Scalar> const read = b_.parallel ? x : basic_matrix_view<Scalar>(tape_.middle);
        basic_matrix<Scalar> to_x; // of parallel branches
        if (!b_.shares_norm()) {
            auto back = through_norm(b_.mlp_norms.input, read, mlp, norms_ != nullptr ? &norms_->mlp : nullptr);
            if (b_.parallel) {
                to_x = std::move(back);
            } else {
                to_middle += back;
            }
        }
        auto [from_branch, before] =
            leave_branch(b_.attention_norms, tape_.attention_branch, tape_.attention_sum, std::move(to_middle));
        basic_matrix<Scalar> attention = through_attention(from_branch);
        if (b_.shares_norm()) {
            attention += mlp;
        }
        before +=
            through_norm(b_.attention_norms.input, x, attention, norms_ != nullptr ? &norms_->attention : nullptr);
        if (to_x.size() > 0) {
            before += to_x;
        }
        return before;
    }

private:
    /// The gradients with respect to what a branch made and to the hidden state it was added to.
    std::pair<basic_matrix<Scalar>, basic_matrix<Scalar>> leave_branch(branch_norm_layers<Scalar> const& norms,
                                                                       basic_matrix<Scalar> const& branch,
                                                                       basic_matrix<Scalar> const& sum,
                                                                       basic_matrix<Scalar> g) const {
        if (norms.sum) {
            g = norms.sum->input_gradient(sum, g, executor_);
        }
        basic_matrix<Scalar> made = b_.residual == Scalar(1) ? g : basic_matrix<Scalar>(b_.residual * g);
        if (norms.output) {
            made = norms.output->input_gradient(branch, made, executor_);
        }
        return {std::move(made), std::move(g)};
    }

    basic_matrix<Scalar> through_norm(std::optional<basic_norm_layer<Scalar>> const& norm, basic_matrix_view<Scalar> x,
                                      basic_matrix<Scalar> const& g,
                                      std::optional<basic_norm_layer<Scalar>>* gradient) const {
        if (!norm) {
            return g;
        }
        return norm->input_gradient(x, g, executor_, gradient != nullptr && *gradient ? &**gradient : nullptr);
    }

    /// The gradient with respect to the input of a layer, which is shown.
    basic_matrix<Scalar> through(layer_place place, basic_matrix<Scalar> const& input, basic_matrix<Scalar> const& g) {
        take_(place, basic_matrix_view<Scalar>(input), basic_matrix_view<Scalar>(g));
        return b_.linear(place).input_gradient(g, executor_);
    }

    /// Through one network: the gradient with respect to the rows that it read, given that to what it made.
    basic_matrix<Scalar> through_network(std::size_t e, basic_matrix<Scalar> const& read,
                                         basic_matrix<Scalar> const& g) {
        auto const place = [&](linear_role role) { return layer_place{role, static_cast<index_t>(e)}; };
        auto& mlp = tape_.mlps[e];
        basic_matrix<Scalar> hidden =
            mlp.hidden.backward(through(place(linear_role::down), mlp.hidden.read(), g), tape_.inputs(), executor_);
        if (!b_.mlps[e].gate) {
            return through(place(linear_role::up), read,
                           nn::activate_backward(b_.gate_form.kind, mlp.up, std::move(hidden), executor_));
        }
        auto const back = nn::gated_backward(b_.gate_form, std::move(mlp.gate), std::move(mlp.up), hidden, executor_);
        basic_matrix<Scalar> to_read = through(place(linear_role::up), read, back.up);
        to_read += through(place(linear_role::gate), read, back.gate);
        return to_read;
    }

    basic_matrix<Scalar> through_mlp(basic_matrix<Scalar> const& g) {
        auto const& read = tape_.mlp_input.read();
        if (!is_mixture(b_)) {
            return tape_.mlp_input.backward(through_network(0, read, g), tape_.inputs(), executor_);
        }
        basic_matrix<Scalar> to_read = basic_matrix<Scalar>::Zero(read.rows(), read.cols());
        basic_matrix<Scalar> to_raw = basic_matrix<Scalar>::Zero(read.rows(), read.cols()); // from routers
        basic_matrix<Scalar> to_weights =
            basic_matrix<Scalar>::Zero(tape_.routes.weights.rows(), tape_.routes.weights.cols()); // (token, choice)
        for (std::size_t e = 0; e < b_.mlps.size(); ++e) {
            auto& mlp = tape_.mlps[e];
            bool const routed = is_routed(b_, e);
            basic_matrix<Scalar> mine = routed ? nn::rows_of_tokens(g, mlp.tokens) : g;
            if (mlp.share.size() > 0) {
                basic_vector<Scalar> const slope = mine.cwiseProduct(mlp.made).rowwise().sum();
                mine.array().colwise() *= mlp.share.array();
                if (routed) {
                    for (std::size_t i = 0; i < mlp.tokens.size(); ++i) {
                        to_weights(mlp.tokens[i].token, mlp.tokens[i].choice) = slope(static_cast<index_t>(i));
                    }
                } else { // a sigmoid's
                    basic_matrix<Scalar> const logit =
                        slope.cwiseProduct(mlp.share.cwiseProduct((Scalar(1) - mlp.share.array()).matrix()));
                    to_raw += through({linear_role::shared_gate}, tape_.mlp_input.raw, logit);
                }
            }
            basic_matrix<Scalar> const rows = routed ? nn::rows_of_tokens(read, mlp.tokens) : read;
            basic_matrix<Scalar> const back = through_network(e, rows, mine);
            for (index_t i = 0; i < back.rows(); ++i) {
                to_read.row(routed ? mlp.tokens[static_cast<std::size_t>(i)].token : i) += back.row(i);
            }
        }
        to_read = tape_.mlp_input.backward(std::move(to_read), tape_.inputs(), executor_);
        if (b_.router) {
            to_raw += through({linear_role::router}, tape_.mlp_input.raw,
                              nn::route_backward(b_.routing, tape_.router_logits, tape_.routes,
                                                 basic_matrix_view<Scalar>(to_weights), executor_));
        }
        return to_read + to_raw;
    }

    basic_matrix<Scalar> through_attention(basic_matrix<Scalar> const& g) {
        basic_matrix<Scalar> const context =
            tape_.context.backward(through({linear_role::output}, tape_.context.read(), g), tape_.inputs(), executor_);
        auto back = nn::attention_backward(tape_.q.read(), tape_.k.read(), tape_.v.read(), context, b_.heads, rows_,
                                           b_.attention, executor_);
        back.q = tape_.q.backward(std::move(back.q), tape_.heads(), executor_);
        back.k = tape_.k.backward(std::move(back.k), tape_.heads(), executor_);
        back.v = tape_.v.backward(std::move(back.v), tape_.heads(), executor_);
        if (b_.rotary) {
            index_t const length = rows_.length(back.q.rows());
            auto const rotation = nn::rotation_of(*b_.rotary, 0, length);
            rotation->apply_transposed(back.q, b_.heads.head_dim, rows_, executor_);
            rotation->apply_transposed(back.k, b_.heads.head_dim, rows_, executor_);
        }
        if (b_.query_norm) {
            back.q = b_.query_norm->input_gradient(tape_.raw_q, back.q, executor_);
        }
        if (b_.key_norm) {
            back.k = b_.key_norm->input_gradient(tape_.raw_k, back.k, executor_);
        }
        auto const& read = tape_.attention_input.read();
        basic_matrix<Scalar> to_read = through({linear_role::query}, read, back.q);
        to_read += through({linear_role::key}, read, back.k);
        to_read += through({linear_role::value}, read, back.v);
        return tape_.attention_input.backward(std::move(to_read), tape_.inputs(), executor_);
    }

    basic_block<Layer> const& b_;
    block_tape<Scalar>& tape_;
    nn::token_rows rows_;
    Take const& take_;
    norm_gradients<Scalar>* norms_;
    executor_ref executor_;
};

/// The gradient of a loss with respect to the hidden state `x` before the block, given that with respect to what
/// `forward` made of it, `g`; the tape is used up. `take` is shown each linear layer's input and gradient; the
/// gradients with respect to norms are added to `norms`, where that is given. The experts that tokens were sent to
/// count as constants.
template <class Layer, class Scalar, class Take>
basic_matrix<Scalar> backward(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x,
                              nn::token_rows rows, block_tape<Scalar>& tape, basic_matrix<Scalar> g, Take const& take,
                              norm_gradients<std::type_identity_t<Scalar>>* norms = nullptr,
                              executor_ref executor = {}) {
    return block_backward<Layer, Scalar, Take>(b, tape, rows, take, norms, executor).run(x, std::move(g));
}

} // namespace detent::inline DETENT_ABI
