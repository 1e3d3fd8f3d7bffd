// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/linear.hpp"
#include "detent/nn/norm.hpp"
#include "detent/nn/rope.hpp"
#include "detent/transform/fake_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// Weight (out, in) and bias (out), or none, of a linear layer; or gradients with respect to them.
template <class Scalar> struct dense_linear {
    basic_matrix<Scalar> weight;
    basic_vector<Scalar> bias;
};

/// The same of a norm, one entry per feature.
template <class Scalar> struct dense_norm {
    norm_layer::kind type = norm_layer::kind::rms;
    Scalar eps = Scalar(1e-5);
    basic_vector<Scalar> weight;
    basic_vector<Scalar> bias; ///< or none
};

/// The float numbers of a decoder's block, or gradients with respect to all of them. In double, gradients can be
/// compared with differences.
template <class Scalar> struct dense_block {
    dense_norm<Scalar> attention_norm;
    dense_norm<Scalar> mlp_norm;
    std::array<dense_linear<Scalar>, 7> linears; ///< by `linear_role`; `gate` is empty where there is none
    nn::attention_heads heads;
    nn::activation activation = nn::activation::silu;
    std::shared_ptr<nn::rope_table const> rope;

    dense_linear<Scalar>& operator[](linear_role role) { return linears[static_cast<std::size_t>(role)]; }
    dense_linear<Scalar> const& operator[](linear_role role) const { return linears[static_cast<std::size_t>(role)]; }

    bool has_gate() const { return (*this)[linear_role::gate].weight.size() > 0; }
    Scalar attention_scale() const { return Scalar(1) / std::sqrt(static_cast<Scalar>(heads.head_dim)); }

    /// The same without the numbers of linear layers.
    dense_block without_linears() const {
        return {attention_norm, mlp_norm, {}, heads, activation, rope};
    }
};

/// All linear layers a block may have.
inline constexpr std::array<linear_role, 7> block_roles{linear_role::query, linear_role::key,  linear_role::value,
                                                        linear_role::output, linear_role::gate, linear_role::up,
                                                        linear_role::down};

/// The numbers of a block of a decoder. @throws error naming a layer whose weights are quantized, or when the block is
/// not causal with norms before its branches.
template <class Scalar> dense_block<Scalar> dense(block const& b) {
    if (b.norms != norm_placement::before || b.mask != nn::attention_mask::causal) {
        throw error("layer '" + b.query.name + "'", "is in a block that is not a decoder's");
    }
    auto const norm = [](norm_layer const& n) {
        return dense_norm<Scalar>{n.type, static_cast<Scalar>(n.eps), n.weight.cast<Scalar>(), n.bias.cast<Scalar>()};
    };
    dense_block<Scalar> d;
    d.attention_norm = norm(b.attention_norm);
    d.mlp_norm = norm(b.mlp_norm);
    d.heads = b.heads;
    d.activation = b.activation;
    d.rope = b.rope;
    for (auto const& group : b.groups()) {
        for (linear_role const role : group) {
            linear_layer const& layer = b.linear(role);
            auto const* weight = std::get_if<matrix>(&layer.weight);
            if (weight == nullptr) {
                throw error("layer '" + layer.name + "'", "is quantized already");
            }
            d[role] = {weight->cast<Scalar>(), layer.bias.cast<Scalar>()};
        }
    }
    return d;
}

/// Writes such numbers back to a block whose weights are not quantized.
inline void store(dense_block<float> const& d, block& b) {
    auto const write = [](dense_norm<float> const& from, norm_layer& to) {
        to.weight = from.weight;
        to.bias = from.bias;
    };
    write(d.attention_norm, b.attention_norm);
    write(d.mlp_norm, b.mlp_norm);
    for (auto const& group : b.groups()) {
        for (linear_role const role : group) {
            b.linear(role).weight = d[role].weight;
            b.linear(role).bias = d[role].bias;
        }
    }
}

/// What rounds the activations in a block, where anything does: what linear layers read, token by token, and what
/// attention reads (queries and keys after their rotation, and values).
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

/// What a forward pass leaves for the backward pass, (token, feature) each. Probabilities of attention are computed
/// again.
template <class Scalar> struct block_tape {
    rounded_activations<Scalar> attention_input, q, k, v, context, mlp_input, hidden;
    basic_matrix<Scalar> middle; ///< the hidden state between the two branches
    basic_matrix<Scalar> gate;   ///< empty where there is none
    basic_matrix<Scalar> up;
};

template <class Scalar>
basic_matrix<Scalar> norm_forward(dense_norm<Scalar> const& norm, basic_matrix_view<Scalar> x, executor_ref executor) {
    if (norm.type == norm_layer::kind::layer) {
        return nn::layer_norm(x, norm.weight, norm.bias, norm.eps, executor);
    }
    DETENT_EXPECTS(norm.bias.size() == 0);
    return nn::rms_norm(x, norm.weight, norm.eps, executor);
}

/// A norm's gradient before anything is added to it.
template <class Scalar> dense_norm<Scalar> zeros_like(dense_norm<Scalar> norm) {
    norm.weight.setZero();
    norm.bias.setZero();
    return norm;
}

template <class Scalar>
basic_matrix<Scalar> norm_backward(dense_norm<Scalar> const& norm, basic_matrix_view<Scalar> x,
                                   basic_matrix_view<Scalar> g, dense_norm<Scalar>& gradient, executor_ref executor) {
    if (norm.type == norm_layer::kind::layer) {
        return nn::layer_norm_backward(x, norm.weight, norm.eps, g, &gradient.weight,
                                       norm.bias.size() > 0 ? &gradient.bias : nullptr, executor);
    }
    return nn::rms_norm_backward(x, norm.weight, norm.eps, g, &gradient.weight, executor);
}

/// The hidden state (token, hidden) after the block, given that before it.
template <class Scalar>
basic_matrix<Scalar> forward(dense_block<Scalar> const& b, block_rounding<Scalar> const& rounding,
                             basic_matrix_view<Scalar> x, nn::token_rows rows, block_tape<Scalar>& tape,
                             executor_ref executor = {}) {
    auto const linear = [&](linear_role role, rounded_activations<Scalar> const& input) {
        return nn::linear(input.read(), b[role].weight, b[role].bias, executor);
    };
    tape.attention_input.set(norm_forward(b.attention_norm, x, executor), rounding.inputs, executor);
    basic_matrix<Scalar> q = linear(linear_role::query, tape.attention_input);
    basic_matrix<Scalar> k = linear(linear_role::key, tape.attention_input);
    if (b.rope) {
        b.rope->apply(q, rows, executor);
        b.rope->apply(k, rows, executor);
    }
    tape.q.set(std::move(q), rounding.attention, executor);
    tape.k.set(std::move(k), rounding.attention, executor);
    tape.v.set(linear(linear_role::value, tape.attention_input), rounding.attention, executor);
    tape.context.set(nn::causal_attention(tape.q.read(), tape.k.read(), tape.v.read(), b.heads, rows,
                                          b.attention_scale(), executor),
                     rounding.inputs, executor);
    tape.middle = x + linear(linear_role::output, tape.context);
    tape.mlp_input.set(norm_forward<Scalar>(b.mlp_norm, tape.middle, executor), rounding.inputs, executor);
    tape.up = linear(linear_role::up, tape.mlp_input);
    if (b.has_gate()) {
        tape.gate = linear(linear_role::gate, tape.mlp_input);
        tape.hidden.set(nn::swiglu(tape.gate, tape.up, executor), rounding.inputs, executor);
    } else {
        tape.hidden.set(nn::activate(b.activation, tape.up, executor), rounding.inputs, executor);
    }
    return tape.middle + linear(linear_role::down, tape.hidden);
}

/// Gradients with respect to the norms of a block.
template <class Scalar> struct norm_gradients {
    dense_norm<Scalar> attention;
    dense_norm<Scalar> mlp;
};

/// The gradients of a loss with respect to the numbers of the block, given that with respect to what `forward` made of
/// `x`, `g`; the tape is used up. Those of linear layers can be large, so each is given to `take(role, gradient)` when
/// it is known. The gradient with respect to x is not computed: blocks are tuned one at a time.
template <class Scalar, class Take>
norm_gradients<Scalar> backward(dense_block<Scalar> const& b, block_rounding<Scalar> const& rounding,
                                basic_matrix_view<Scalar> x, nn::token_rows rows, block_tape<Scalar>& tape,
                                basic_matrix<Scalar> g, Take const& take, executor_ref executor = {}) {
    norm_gradients<Scalar> gradient{zeros_like(b.attention_norm), zeros_like(b.mlp_norm)};
    auto const linear = [&](linear_role role, rounded_activations<Scalar> const& input,
                            basic_matrix<Scalar> const& g_out) {
        dense_linear<Scalar> const& layer = b[role];
        dense_linear<Scalar> slope{basic_matrix<Scalar>::Zero(layer.weight.rows(), layer.weight.cols()),
                                   basic_vector<Scalar>::Zero(layer.bias.size())};
        nn::add_linear_weight_gradient(g_out, input.read(), slope.weight, executor);
        if (layer.bias.size() > 0) {
            nn::add_linear_bias_gradient(g_out, slope.bias, executor);
        }
        take(role, std::move(slope));
        return nn::linear_input_gradient(g_out, layer.weight, executor);
    };
    basic_matrix<Scalar> from_hidden =
        tape.hidden.backward(linear(linear_role::down, tape.hidden, g), rounding.inputs, executor);
    basic_matrix<Scalar> from_mlp; // (token, hidden)
    if (b.has_gate()) {
        auto const back = nn::swiglu_backward(std::move(tape.gate), std::move(tape.up), from_hidden, executor);
        from_mlp = linear(linear_role::up, tape.mlp_input, back.up);
        from_mlp += linear(linear_role::gate, tape.mlp_input, back.gate);
    } else {
        from_mlp = linear(linear_role::up, tape.mlp_input,
                          nn::activate_backward(b.activation, tape.up, std::move(from_hidden), executor));
    }
    from_mlp = tape.mlp_input.backward(std::move(from_mlp), rounding.inputs, executor);
    g += norm_backward<Scalar>(b.mlp_norm, tape.middle, from_mlp, gradient.mlp, executor);

    basic_matrix<Scalar> const from_context =
        tape.context.backward(linear(linear_role::output, tape.context, g), rounding.inputs, executor);
    auto back = nn::causal_attention_backward(tape.q.read(), tape.k.read(), tape.v.read(), from_context, b.heads, rows,
                                              b.attention_scale(), executor);
    back.q = tape.q.backward(std::move(back.q), rounding.attention, executor);
    back.k = tape.k.backward(std::move(back.k), rounding.attention, executor);
    back.v = tape.v.backward(std::move(back.v), rounding.attention, executor);
    if (b.rope) {
        b.rope->apply_transposed(back.q, rows, executor);
        b.rope->apply_transposed(back.k, rows, executor);
    }
    basic_matrix<Scalar> from_attention = linear(linear_role::query, tape.attention_input, back.q);
    from_attention += linear(linear_role::key, tape.attention_input, back.k);
    from_attention += linear(linear_role::value, tape.attention_input, back.v);
    from_attention = tape.attention_input.backward(std::move(from_attention), rounding.inputs, executor);
    norm_backward<Scalar>(b.attention_norm, x, from_attention, gradient.attention, executor);
    return gradient;
}

} // namespace detent::inline DETENT_ABI
