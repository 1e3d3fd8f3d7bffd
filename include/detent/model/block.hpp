// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <compare>
#include <optional>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/activation.hpp"
#include "detent/nn/attention.hpp"
#include "detent/nn/rotary_law.hpp"
#include "detent/nn/router.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/quantizer/kv_layer.hpp"

namespace detent::inline DETENT_ABI {

/// What a linear layer does in its block, or as the output head of a model. OPT's fc1 and fc2 are `up` and `down`; it
/// has no `gate`. A `router` says which experts a token goes to, a `shared_gate` how much of the shared one; both stay
/// float.
enum class linear_role { query, key, value, output, gate, up, down, head, router, shared_gate };

constexpr bool is_quantized(linear_role role) {
    return role != linear_role::router && role != linear_role::shared_gate;
}

/// One linear layer of a block: its role, and which of the feed-forward networks it is in where those are experts.
struct layer_place {
    linear_role role = linear_role::query;
    index_t expert = 0;

    friend auto operator<=>(layer_place const&, layer_place const&) = default;
};

/// Activations of a block that linear layers read, whose channels can be scaled.
enum class site {
    attention_input, ///< read by query, key and value, and where parallel branches share a norm, by gate and up too
    context,         ///< what attention makes, read by output
    mlp_input,       ///< read by gate and up, of all experts, and by the router
    hidden           ///< read by down, one for each expert
};

/// The norms of one of the two branches of a block, of attention or of the feed-forward network; each or none.
template <class Scalar> struct branch_norm_layers {
    std::optional<basic_norm_layer<Scalar>> input;  ///< of what the branch reads
    std::optional<basic_norm_layer<Scalar>> output; ///< of what it makes, before that is added to the hidden state
    std::optional<basic_norm_layer<Scalar>> sum;    ///< of the hidden state when it has been added
};

/// down(act(gate(x)) * up(x)), or without a gate down(act(up(x))).
template <class Layer> struct feed_forward_layers {
    std::optional<Layer> gate;
    Layer up;
    Layer down;
};

/// One transformer block of any family, a branch of attention and one of a feed-forward network, whose linear layers
/// are `Layer`: those of a model that runs (`linear_layer`), or plain numbers, to learn from (`dense_linear`). The data
/// flow is in block_flow.hpp, once for both; all activations are (token, feature).
template <class Layer> struct basic_block {
    using scalar = typename Layer::scalar;
    using norm = basic_norm_layer<scalar>;

    branch_norm_layers<scalar> attention_norms;
    std::optional<norm> query_norm, key_norm; ///< before queries and keys are rotated
    Layer query;
    Layer key;
    Layer value;
    Layer output;
    branch_norm_layers<scalar> mlp_norms;
    std::vector<feed_forward_layers<Layer>> mlps; ///< one, or the experts and after them the shared one, if any
    std::optional<Layer> router;                  ///< of experts
    std::optional<Layer> shared_gate;             ///< (1, hidden), before a sigmoid that multiplies the shared expert

    nn::attention_heads heads;
    nn::attention_form attention;
    std::optional<nn::rotary_law> rotary; ///< none where positions are not rotated
    nn::gate_form gate_form;              ///< and the activation where there is no gate
    nn::router_form routing;
    bool parallel = false; ///< both branches read the hidden state before the block
    scalar residual = 1;   ///< multiplies what each branch makes
    /// Rounds what attention reads, each head of queries, keys and values as if it were a token; none where they stay.
    std::optional<activation_quantizer> head_input = {};

    /// Experts that tokens are sent to; 0 where there is one network for all.
    index_t experts() const { return router ? router->shape().rows : 0; }

    /// Whether the feed-forward network reads what the norm of attention makes.
    bool shares_norm() const { return parallel && attention_norms.input && !mlp_norms.input; }

    Layer& linear(layer_place place) { return const_cast<Layer&>(std::as_const(*this).linear(place)); }
    Layer const& linear(layer_place place) const;

    /// The linear layers that are quantized, in the order they run; those of one group read the same input.
    std::vector<std::vector<layer_place>> groups() const;

    /// All linear layers, those that stay float among them.
    std::vector<layer_place> places() const;
};

/// A block of a model that runs.
struct block : basic_block<linear_layer> {}; // no alias, which variables called `block` would shadow

template <class Layer> std::vector<layer_place> basic_block<Layer>::places() const {
    std::vector<layer_place> all;
    for (auto const& group : groups()) {
        all.insert(all.end(), group.begin(), group.end());
    }
    if (router) {
        all.push_back({linear_role::router});
    }
    if (shared_gate) {
        all.push_back({linear_role::shared_gate});
    }
    return all;
}

/// The hidden state (token, hidden) after the block, given that before it, `x`, of the tokens that `rows` describes or,
/// with a cache, of one sequence whose first `rows.start` tokens are in the cache; the new ones are added to it.
matrix forward(block const& b, matrix_view x, nn::token_rows rows, executor_ref executor = {},
               kv_layer* cache = nullptr);

template <class Layer> Layer const& basic_block<Layer>::linear(layer_place place) const {
    auto const& mlp = mlps[static_cast<std::size_t>(place.expert)];
    switch (place.role) {
    case linear_role::query:
        return query;
    case linear_role::key:
        return key;
    case linear_role::value:
        return value;
    case linear_role::output:
        return output;
    case linear_role::gate:
        DETENT_EXPECTS(mlp.gate.has_value());
        return *mlp.gate;
    case linear_role::up:
        return mlp.up;
    case linear_role::router:
        DETENT_EXPECTS(router.has_value());
        return *router;
    case linear_role::shared_gate:
        DETENT_EXPECTS(shared_gate.has_value());
        return *shared_gate;
    default:
        DETENT_EXPECTS(place.role == linear_role::down);
        return mlp.down;
    }
}

template <class Layer> std::vector<std::vector<layer_place>> basic_block<Layer>::groups() const {
    using role = linear_role;
    std::vector<std::vector<layer_place>> all{{{role::query}, {role::key}, {role::value}}, {{role::output}}};
    for (index_t e = 0; e < std::ssize(mlps); ++e) {
        bool const gated = mlps[static_cast<std::size_t>(e)].gate.has_value();
        all.push_back(gated ? std::vector<layer_place>{{role::gate, e}, {role::up, e}}
                            : std::vector<layer_place>{{role::up, e}});
        all.push_back({{role::down, e}});
    }
    return all;
}

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/model/block.ipp" // IWYU pragma: export
#endif
