// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/block.hpp"
#include "detent/quantizer/kv_layer.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/router.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/transform/fake_quantizer.hpp"

// The data flow of transformer blocks, forward and backward, once for models that run and for learning. The forward
// pass comes in the steps whose activations calibration looks at.
namespace detent::inline DETENT_ABI {

/// What rounds the activations in a block while it is learned, where anything does: what linear layers read, token by
/// token, and what attention reads (queries and keys after their rotation, and values).
template <class Scalar> struct block_rounding {
    std::optional<fake_quantizer<Scalar>> inputs;
    std::optional<fake_quantizer<Scalar>> attention;
};

/// Activations before and after they are rounded.
template <class Scalar> struct rounded_activations {
    basic_matrix<Scalar> raw;     ///< (token, feature)
    basic_matrix<Scalar> rounded; ///< empty where nothing rounds
    typename fake_quantizer<Scalar>::tiles how;

    void set(basic_matrix<Scalar> x, std::optional<fake_quantizer<Scalar>> const& quantizer, executor_ref executor) {
        raw = std::move(x);
        if (quantizer) {
            rounded = quantizer->forward(raw, nullptr, how, executor);
        }
    }

    /// What the next step reads.
    basic_matrix<Scalar> const& read() const { return rounded.size() > 0 ? rounded : raw; }

    /// The gradient before rounding, given that after it.
    basic_matrix<Scalar> backward(basic_matrix<Scalar> g, std::optional<fake_quantizer<Scalar>> const& quantizer,
                                  executor_ref executor) const {
        return quantizer ? quantizer->backward(raw, rounded, std::move(g), how, nullptr, nullptr, executor)
                         : std::move(g);
    }
};

/// What one feed-forward network of a block was given and made.
template <class Scalar> struct feed_forward_tape {
    std::vector<nn::routed_token> tokens; ///< that were sent here; empty where all are
    basic_vector<Scalar> share;           ///< of what it makes, for each of them; empty where that is 1
    basic_matrix<Scalar> gate;   ///< (token, intermediate), or empty
    basic_matrix<Scalar> up;     ///< (token, intermediate)
    rounded_activations<Scalar> hidden;
    basic_matrix<Scalar> made; ///< (token, hidden), kept where there are shares
};

/// The activations of one pass through a block, (token, feature) each: what the backward pass needs. Probabilities of
/// attention are computed again.
template <class Scalar> struct block_tape {
    block_rounding<Scalar> const* rounding = nullptr;
    rounded_activations<Scalar> attention_input, q, k, v, context, mlp_input;
    basic_matrix<Scalar> raw_q, raw_k;                    ///< before their norms, if they have some
    basic_matrix<Scalar> attention_branch, attention_sum; ///< before the norms there, if there are some
    basic_matrix<Scalar> mlp_branch, mlp_sum;             ///< likewise
    basic_matrix<Scalar> middle;                          ///< the hidden state between the two branches
    basic_matrix<Scalar> router_logits;                   ///< (token, expert)
    nn::expert_routes<Scalar> routes;
    std::vector<feed_forward_tape<Scalar>> mlps;

    std::optional<fake_quantizer<Scalar>> const& inputs() const {
        static std::optional<fake_quantizer<Scalar>> const none;
        return rounding != nullptr ? rounding->inputs : none;
    }
    std::optional<fake_quantizer<Scalar>> const& heads() const {
        static std::optional<fake_quantizer<Scalar>> const none;
        return rounding != nullptr ? rounding->attention : none;
    }
};

/// Adds what a branch makes to the hidden state `x` with the norms that it has there.
template <class Layer, class Scalar>
basic_matrix<Scalar> add_branch(basic_block<Layer> const& b, branch_norm_layers<Scalar> const& norms,
                                basic_matrix_view<Scalar> x, basic_matrix<Scalar> made, basic_matrix<Scalar>& branch,
                                basic_matrix<Scalar>& sum, executor_ref executor) {
    if (norms.output) {
        branch = std::move(made);
        made = norms.output->forward(branch, executor);
    }
    executor.for_pieces(x.rows(), nn::rows_per_piece, [&](index_t begin, index_t end) {
        auto rows = made.middleRows(begin, end - begin);
        if (b.residual != Scalar(1)) {
            rows *= b.residual;
        }
        rows += x.middleRows(begin, end - begin);
    });
    if (norms.sum) {
        sum = std::move(made);
        made = norms.sum->forward(sum, executor);
    }
    return made;
}

/// The same for keys and values in a cache.
inline kernel::score_rule rule_of(nn::attention_form const& form, nn::attention_heads const& heads) {
    return {.scale = static_cast<float>(form.scale),
            .soft_cap = static_cast<float>(form.soft_cap),
            .window = form.window,
            .probability_bits = heads.probability_bits,
            .slopes = form.slopes.empty() ? nullptr : form.slopes.data(),
            .sinks = form.sinks.empty() ? nullptr : form.sinks.data()};
}

/// Step 1: what query, key and value read, given the hidden state `x` before the block.
template <class Layer, class Scalar>
void enter_attention(basic_block<Layer> const& b, basic_matrix_view<Scalar> x, block_tape<Scalar>& tape,
                     executor_ref executor = {}) {
    auto const& norm = b.attention_norms.input;
    tape.attention_input.set(norm ? norm->forward(x, executor) : basic_matrix<Scalar>(x), tape.inputs(), executor);
}

/// Queries and keys as attention reads them: normalized, rotated, rounded.
template <class Layer, class Scalar>
void prepare_heads(basic_block<Layer> const& b, nn::token_rows rows, block_tape<Scalar>& tape, basic_matrix<Scalar> q,
                   basic_matrix<Scalar> k, basic_matrix<Scalar> v, executor_ref executor) {
    if (b.query_norm) {
        tape.raw_q = std::move(q);
        q = b.query_norm->forward(tape.raw_q, executor);
    }
    if (b.key_norm) {
        tape.raw_k = std::move(k);
        k = b.key_norm->forward(tape.raw_k, executor);
    }
    if (b.rotary) {
        index_t const length = rows.length(q.rows());
        auto const rotation = nn::rotary_of(*b.rotary, rows.start + length).at(rows.start, length);
        rotation.apply(q, b.heads.head_dim, rows, executor);
        rotation.apply(k, b.heads.head_dim, rows, executor);
    }
    if constexpr (std::is_same_v<Scalar, float>) {
        if (b.head_input) {
            for (matrix* const x : {&q, &k, &v}) {
                // (token and head, feature)
                Eigen::Map<matrix> parts(x->data(), x->size() / b.heads.head_dim, b.heads.head_dim);
                parts = b.head_input->round(parts, executor);
            }
        }
    }
    tape.q.set(std::move(q), tape.heads(), executor);
    tape.k.set(std::move(k), tape.heads(), executor);
    tape.v.set(std::move(v), tape.heads(), executor);
}

/// Step 2: what the output projection reads: attention over the tokens that `rows` describes or, with a cache, over one
/// sequence whose first `rows.start` tokens are in the cache; the new ones are added to it.
template <class Layer, class Scalar>
void attend(basic_block<Layer> const& b, nn::token_rows rows, block_tape<Scalar>& tape, executor_ref executor = {},
            kv_layer* cache = nullptr) {
    auto const& read = tape.attention_input.read();
    prepare_heads(b, rows, tape, b.query.forward(read, executor), b.key.forward(read, executor),
                  b.value.forward(read, executor), executor);
    if constexpr (std::is_same_v<Scalar, float>) {
        if (cache != nullptr) {
            DETENT_EXPECTS(b.attention.mask == nn::attention_mask::causal && rows.sequences == 1 &&
                           rows.start == cache->size());
            cache->append(tape.k.read(), tape.v.read(), executor);
            tape.context.set(cache->attend(tape.q.read(), rule_of(b.attention, b.heads), executor), tape.inputs(),
                             executor);
            return;
        }
    }
    DETENT_EXPECTS(cache == nullptr && rows.start == 0);
    tape.context.set(nn::attention(tape.q.read(), tape.k.read(), tape.v.read(), b.heads, rows, b.attention, executor),
                     tape.inputs(), executor);
}

/// Step 3: the hidden state between the branches.
template <class Layer, class Scalar>
void leave_attention(basic_block<Layer> const& b, basic_matrix_view<Scalar> x, block_tape<Scalar>& tape,
                     executor_ref executor = {}) {
    tape.middle = add_branch(b, b.attention_norms, x, b.output.forward(tape.context.read(), executor),
                             tape.attention_branch, tape.attention_sum, executor);
}

/// Step 4: what the feed-forward networks read, and which tokens each of them gets. `x` is the hidden state before the
/// block, which parallel branches read.
template <class Layer, class Scalar>
void enter_mlp(basic_block<Layer> const& b, basic_matrix_view<Scalar> x, block_tape<Scalar>& tape,
               executor_ref executor = {}) {
    auto const& norm = b.shares_norm() ? b.attention_norms.input : b.mlp_norms.input;
    basic_matrix_view<Scalar> const from = b.parallel ? x : basic_matrix_view<Scalar>(tape.middle);
    tape.mlp_input.set(norm ? norm->forward(from, executor) : basic_matrix<Scalar>(from), tape.inputs(), executor);
    tape.mlps.resize(b.mlps.size());
    if (b.router) {
        tape.router_logits = b.router->forward(tape.mlp_input.raw, executor);
        tape.routes = nn::route(b.routing, tape.router_logits, executor);
        auto sent = nn::tokens_by_expert(tape.routes, b.experts());
        for (std::size_t e = 0; e < sent.size(); ++e) {
            auto& mlp = tape.mlps[e];
            mlp.tokens = std::move(sent[e]);
            mlp.share.resize(std::ssize(mlp.tokens));
            for (std::size_t i = 0; i < mlp.tokens.size(); ++i) {
                mlp.share(static_cast<index_t>(i)) = tape.routes.weights(mlp.tokens[i].token, mlp.tokens[i].choice);
            }
        }
    }
    if (b.shared_gate) {
        basic_matrix<Scalar> const logit = b.shared_gate->forward(tape.mlp_input.raw, executor); // (token, 1)
        tape.mlps.back().share = (Scalar(1) + (-logit.col(0).array()).exp()).inverse();
    }
}

/// Whether a network of a block gets some of the tokens only.
template <class Layer> bool is_routed(basic_block<Layer> const& b, std::size_t mlp) {
    return static_cast<index_t>(mlp) < b.experts();
}

/// Step 5: what the last layer of network `e` reads.
template <class Layer, class Scalar>
void run_hidden(basic_block<Layer> const& b, std::size_t e, block_tape<Scalar>& tape, executor_ref executor = {}) {
    auto const& layers = b.mlps[e];
    auto& mlp = tape.mlps[e];
    basic_matrix<Scalar> const mine = is_routed(b, e) ? nn::rows_of_tokens(tape.mlp_input.read(), mlp.tokens) : basic_matrix<Scalar>();
    basic_matrix<Scalar> const& read = is_routed(b, e) ? mine : tape.mlp_input.read();
    mlp.up = layers.up.forward(read, executor);
    if (layers.gate) {
        mlp.gate = layers.gate->forward(read, executor);
    }
    mlp.hidden.set(layers.gate ? nn::gated(b.gate_form, mlp.gate, mlp.up, executor)
                               : nn::activate(b.gate_form.kind, basic_matrix<Scalar>(mlp.up), executor),
                   tape.inputs(), executor);
}

/// Step 6: the hidden state after the block.
template <class Layer, class Scalar>
basic_matrix<Scalar> leave_mlp(basic_block<Layer> const& b, block_tape<Scalar>& tape, executor_ref executor = {}) {
    basic_matrix<Scalar> made;
    if (!b.router && !b.shared_gate && b.mlps.size() == 1) {
        made = b.mlps.front().down.forward(tape.mlps.front().hidden.read(), executor);
    } else {
        made = basic_matrix<Scalar>::Zero(tape.middle.rows(), tape.middle.cols());
        for (std::size_t e = 0; e < b.mlps.size(); ++e) {
            auto& mlp = tape.mlps[e];
            mlp.made = b.mlps[e].down.forward(mlp.hidden.read(), executor);
            for (index_t i = 0; i < mlp.made.rows(); ++i) {
                index_t const token = is_routed(b, e) ? mlp.tokens[static_cast<std::size_t>(i)].token : i;
                made.row(token) += (mlp.share.size() > 0 ? mlp.share(i) : Scalar(1)) * mlp.made.row(i);
            }
        }
    }
    return add_branch(b, b.mlp_norms, basic_matrix_view<Scalar>(tape.middle), std::move(made), tape.mlp_branch,
                      tape.mlp_sum, executor);
}

/// The hidden state (token, hidden) after the block, given that before it; see `attend` for `rows` and `cache`.
template <class Layer, class Scalar>
basic_matrix<Scalar> forward(basic_block<Layer> const& b, basic_matrix_view<Scalar> x, nn::token_rows rows,
                             block_tape<Scalar>& tape, executor_ref executor = {}, kv_layer* cache = nullptr) {
    enter_attention(b, x, tape, executor);
    attend(b, rows, tape, executor, cache);
    leave_attention(b, x, tape, executor);
    enter_mlp(b, x, tape, executor);
    for (std::size_t e = 0; e < b.mlps.size(); ++e) {
        run_hidden(b, e, tape, executor);
    }
    return leave_mlp(b, tape, executor);
}

/// Gradients with respect to the norms whose scales are transformed.
template <class Scalar> struct norm_gradients {
    std::optional<basic_norm_layer<Scalar>> attention, mlp; ///< of what the branches read
};

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
            (b_.parallel ? to_x : to_middle) = b_.parallel ? std::move(back) : basic_matrix<Scalar>(to_middle + back);
        }
        auto [from_branch, before] =
            leave_branch(b_.attention_norms, tape_.attention_branch, tape_.attention_sum, std::move(to_middle));
        basic_matrix<Scalar> attention = through_attention(from_branch);
        if (b_.shares_norm()) {
            attention += mlp;
        }
        before += through_norm(b_.attention_norms.input, x, attention, norms_ != nullptr ? &norms_->attention : nullptr);
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
        basic_matrix<Scalar> hidden = mlp.hidden.backward(through(place(linear_role::down), mlp.hidden.read(), g),
                                                          tape_.inputs(), executor_);
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
        if (!b_.router && !b_.shared_gate && b_.mlps.size() == 1) {
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
                    basic_matrix<Scalar> const logit = slope.cwiseProduct(
                        mlp.share.cwiseProduct((Scalar(1) - mlp.share.array()).matrix()));
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
        basic_matrix<Scalar> const context = tape_.context.backward(
            through({linear_role::output}, tape_.context.read(), g), tape_.inputs(), executor_);
        auto back = nn::attention_backward(tape_.q.read(), tape_.k.read(), tape_.v.read(), context, b_.heads, rows_,
                                           b_.attention, executor_);
        back.q = tape_.q.backward(std::move(back.q), tape_.heads(), executor_);
        back.k = tape_.k.backward(std::move(back.k), tape_.heads(), executor_);
        back.v = tape_.v.backward(std::move(back.v), tape_.heads(), executor_);
        if (b_.rotary) {
            index_t const length = rows_.length(back.q.rows());
            auto const rotation = nn::rotary_of(*b_.rotary, length).at(0, length);
            rotation.apply_transposed(back.q, b_.heads.head_dim, rows_, executor_);
            rotation.apply_transposed(back.k, b_.heads.head_dim, rows_, executor_);
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
/// `forward` made of it, `g`; the tape is used up. `take` is shown each linear layer's input and gradient; the gradients
/// with respect to norms are added to `norms`, where that is given.
template <class Layer, class Scalar, class Take>
basic_matrix<Scalar> backward(basic_block<Layer> const& b, basic_matrix_view<Scalar> x, nn::token_rows rows,
                              block_tape<Scalar>& tape, basic_matrix<Scalar> g, Take const& take,
                              norm_gradients<Scalar>* norms = nullptr, executor_ref executor = {}) {
    return block_backward<Layer, Scalar, Take>(b, tape, rows, take, norms, executor).run(x, std::move(g));
}

} // namespace detent::inline DETENT_ABI
