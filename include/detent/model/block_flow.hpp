// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cmath>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/block.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/router.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/quantizer/kv_layer.hpp"
#include "detent/transform/fake_quantizer.hpp"

// The data flow of transformer blocks, once for models that run and for learning, in the steps whose activations
// calibration looks at. The way back is in block_backward.hpp.
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
    std::vector<nn::routed_token> tokens; ///< that were sent here, of an expert
    basic_vector<Scalar> share;           ///< of what it makes, for each of them; empty where that is 1
    basic_matrix<Scalar> gate;            ///< (token, intermediate), or empty
    basic_matrix<Scalar> up;              ///< (token, intermediate)
    rounded_activations<Scalar> hidden;
    basic_matrix<Scalar> made; ///< (token, hidden), of one of several
};

/// The activations of one pass through a block, (token, feature) each: what the backward pass needs. Probabilities of
/// attention are computed again.
template <class Scalar> struct block_tape {
    block_rounding<Scalar> const* rounding = nullptr;
    bool keeps = true; ///< else each step frees what no later one reads, and there is no backward pass
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

    /// Frees activations that no later step reads.
    template <class... Activations> void done_with(Activations&... activations) const {
        if (!keeps) {
            ((activations = Activations{}), ...);
        }
    }
};

/// Adds what a branch makes to the hidden state `x` with the norms that it has there.
template <class Layer, class Scalar>
basic_matrix<Scalar> add_branch(basic_block<Layer> const& b, branch_norm_layers<Scalar> const& norms,
                                std::type_identity_t<basic_matrix_view<Scalar>> x, basic_matrix<Scalar> made,
                                basic_matrix<Scalar>& branch, basic_matrix<Scalar>& sum, executor_ref executor) {
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

/// What attention over keys and values in a cache is told of its form.
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
void enter_attention(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x,
                     block_tape<Scalar>& tape, executor_ref executor = {}) {
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
    tape.done_with(tape.raw_q, tape.raw_k);
    if (b.rotary) {
        index_t const length = rows.length(q.rows());
        auto const rotation = nn::rotation_of(*b.rotary, rows.start, length);
        rotation->apply(q, b.heads.head_dim, rows, executor);
        rotation->apply(k, b.heads.head_dim, rows, executor);
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
    if (!b.shares_norm()) {
        tape.done_with(tape.attention_input);
    }
    if constexpr (std::is_same_v<Scalar, float>) {
        if (cache != nullptr) {
            DETENT_EXPECTS(b.attention.mask == nn::attention_mask::causal && rows.sequences == 1 &&
                           rows.start == cache->size());
            cache->append(tape.k.read(), tape.v.read(), executor);
            tape.context.set(cache->attend(tape.q.read(), rule_of(b.attention, b.heads), executor), tape.inputs(),
                             executor);
            tape.done_with(tape.q, tape.k, tape.v);
            return;
        }
    }
    DETENT_EXPECTS(cache == nullptr && rows.start == 0);
    tape.context.set(nn::attention(tape.q.read(), tape.k.read(), tape.v.read(), b.heads, rows, b.attention, executor),
                     tape.inputs(), executor);
    tape.done_with(tape.q, tape.k, tape.v);
}

/// Step 3: the hidden state between the branches.
template <class Layer, class Scalar>
void leave_attention(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x,
                     block_tape<Scalar>& tape, executor_ref executor = {}) {
    tape.middle = add_branch(b, b.attention_norms, x, b.output.forward(tape.context.read(), executor),
                             tape.attention_branch, tape.attention_sum, executor);
    tape.done_with(tape.context, tape.attention_branch, tape.attention_sum);
}

/// Step 4: what the feed-forward networks read, and which tokens each of them gets. `x` is the hidden state before the
/// block, which parallel branches read.
template <class Layer, class Scalar>
void enter_mlp(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x, block_tape<Scalar>& tape,
               executor_ref executor = {}) {
    if (b.shares_norm()) {
        tape.mlp_input = tape.keeps ? tape.attention_input : std::move(tape.attention_input);
    } else {
        basic_matrix_view<Scalar> const from = b.parallel ? x : basic_matrix_view<Scalar>(tape.middle);
        auto const& norm = b.mlp_norms.input;
        tape.mlp_input.set(norm ? norm->forward(from, executor) : basic_matrix<Scalar>(from), tape.inputs(), executor);
    }
    tape.mlps.resize(b.mlps.size());
    if (b.router) {
        tape.router_logits = b.router->forward(tape.mlp_input.raw, executor);
        tape.routes = nn::route(b.routing, tape.router_logits, executor);
        auto sent = nn::tokens_by_expert(tape.routes, b.experts());
        for (std::size_t e = 0; e < sent.size(); ++e) {
            auto& mlp = tape.mlps[e];
            mlp.tokens = std::move(sent[e]);
            mlp.share = nn::weights_of_tokens(tape.routes, mlp.tokens);
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
    basic_matrix<Scalar> const mine =
        is_routed(b, e) ? nn::rows_of_tokens(tape.mlp_input.read(), mlp.tokens) : basic_matrix<Scalar>();
    basic_matrix<Scalar> const& read = is_routed(b, e) ? mine : tape.mlp_input.read();
    mlp.up = layers.up.forward(read, executor);
    auto const given = [&](basic_matrix<Scalar>& x) { // to be overwritten
        return tape.keeps ? x : std::move(x);
    };
    if (layers.gate) {
        mlp.gate = layers.gate->forward(read, executor);
        mlp.hidden.set(nn::gated(b.gate_form, given(mlp.gate), mlp.up, executor), tape.inputs(), executor);
    } else {
        mlp.hidden.set(nn::activate(b.gate_form.kind, given(mlp.up), executor), tape.inputs(), executor);
    }
    tape.done_with(mlp.gate, mlp.up);
}

/// Whether what a block's networks make has to be weighed and added.
template <class Layer> bool is_mixture(basic_block<Layer> const& b) {
    return b.router || b.shared_gate || b.mlps.size() > 1;
}

/// What network `e` makes of its tokens, (token, hidden).
template <class Layer, class Scalar>
basic_matrix<Scalar> run_down(basic_block<Layer> const& b, std::size_t e, block_tape<Scalar>& tape,
                              executor_ref executor) {
    auto made = b.mlps[e].down.forward(tape.mlps[e].hidden.read(), executor);
    tape.done_with(tape.mlps[e].hidden);
    return made;
}

/// Step 6: the hidden state after the block.
template <class Layer, class Scalar>
basic_matrix<Scalar> leave_mlp(basic_block<Layer> const& b, block_tape<Scalar>& tape, executor_ref executor = {}) {
    tape.done_with(tape.mlp_input);
    basic_matrix<Scalar> made;
    if (is_mixture(b)) {
        made = basic_matrix<Scalar>::Zero(tape.middle.rows(), tape.middle.cols());
        for (std::size_t e = 0; e < b.mlps.size(); ++e) {
            auto& mlp = tape.mlps[e];
            mlp.made = run_down(b, e, tape, executor);
            for (index_t i = 0; i < mlp.made.rows(); ++i) {
                index_t const token = is_routed(b, e) ? mlp.tokens[static_cast<std::size_t>(i)].token : i;
                made.row(token) += (mlp.share.size() > 0 ? mlp.share(i) : Scalar(1)) * mlp.made.row(i);
            }
            tape.done_with(mlp.made);
        }
    } else {
        made = run_down(b, 0, tape, executor);
    }
    return add_branch(b, b.mlp_norms, basic_matrix_view<Scalar>(tape.middle), std::move(made), tape.mlp_branch,
                      tape.mlp_sum, executor);
}

/// Steps 1 to 5.
template <class Layer, class Scalar>
void run_to_hidden(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x, nn::token_rows rows,
                   block_tape<Scalar>& tape, executor_ref executor = {}, kv_layer* cache = nullptr) {
    enter_attention(b, x, tape, executor);
    attend(b, rows, tape, executor, cache);
    leave_attention(b, x, tape, executor);
    enter_mlp(b, x, tape, executor);
    for (std::size_t e = 0; e < b.mlps.size(); ++e) {
        run_hidden(b, e, tape, executor);
    }
}

/// The hidden state (token, hidden) after the block, given that before it; see `attend` for `rows` and `cache`.
template <class Layer, class Scalar>
basic_matrix<Scalar> forward(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x,
                             nn::token_rows rows, block_tape<Scalar>& tape, executor_ref executor = {},
                             kv_layer* cache = nullptr) {
    run_to_hidden(b, x, rows, tape, executor, cache);
    return leave_mlp(b, tape, executor);
}

/// Makes the tape of a pass whose result is known: the last step is left out where the backward pass reads nothing that
/// it makes.
template <class Layer, class Scalar>
void record(basic_block<Layer> const& b, std::type_identity_t<basic_matrix_view<Scalar>> x, nn::token_rows rows,
            block_tape<Scalar>& tape, executor_ref executor = {}) {
    run_to_hidden(b, x, rows, tape, executor);
    if (is_mixture(b) || b.mlp_norms.output || b.mlp_norms.sum) {
        leave_mlp(b, tape, executor);
    }
}

#if defined(DETENT_COMPILED) // instantiated in src/compiled/model.cpp
extern template void enter_attention<linear_layer, float>(basic_block<linear_layer> const&, matrix_view,
                                                          block_tape<float>&, executor_ref);
extern template void prepare_heads<linear_layer, float>(basic_block<linear_layer> const&, nn::token_rows,
                                                        block_tape<float>&, matrix, matrix, matrix, executor_ref);
extern template void attend<linear_layer, float>(basic_block<linear_layer> const&, nn::token_rows, block_tape<float>&,
                                                 executor_ref, kv_layer*);
extern template void leave_attention<linear_layer, float>(basic_block<linear_layer> const&, matrix_view,
                                                          block_tape<float>&, executor_ref);
extern template void enter_mlp<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, block_tape<float>&,
                                                    executor_ref);
extern template void run_hidden<linear_layer, float>(basic_block<linear_layer> const&, std::size_t, block_tape<float>&,
                                                     executor_ref);
extern template matrix leave_mlp<linear_layer, float>(basic_block<linear_layer> const&, block_tape<float>&,
                                                      executor_ref);
extern template matrix forward<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, nn::token_rows,
                                                    block_tape<float>&, executor_ref, kv_layer*);
extern template void record<linear_layer, float>(basic_block<linear_layer> const&, matrix_view, nn::token_rows,
                                                 block_tape<float>&, executor_ref);
#endif

} // namespace detent::inline DETENT_ABI
