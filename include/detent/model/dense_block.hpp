// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/block.hpp"
#include "detent/model/linear_layer.hpp"
#include "detent/model/norm_layer.hpp"
#include "detent/nn/linear.hpp"

namespace detent::inline DETENT_ABI {

/// Weight (out, in) and bias (out), or none, of a linear layer; or gradients with respect to them.
template <class Scalar> struct dense_linear {
    using scalar = Scalar;

    basic_matrix<Scalar> weight;
    basic_vector<Scalar> bias;

    /// (out, in).
    extents shape() const { return shape_of(weight); }

    /// (token, in) to (token, out).
    basic_matrix<Scalar> forward(basic_matrix_view<Scalar> x, executor_ref executor = {}) const {
        return nn::linear(x, weight, bias, executor);
    }

    /// The gradient with respect to the input, (token, in), given that with respect to the result, (token, out).
    basic_matrix<Scalar> input_gradient(basic_matrix_view<Scalar> g, executor_ref executor = {}) const {
        return nn::linear_input_gradient(g, weight, executor);
    }
};

/// The float numbers of a block. In double, gradients can be compared with differences.
template <class Scalar> using dense_block = basic_block<dense_linear<Scalar>>;

/// The block `b` with layers that `layer(from, place)` makes of its own, and norms that `norm(from)` makes.
template <class To, class From, class MakeLayer, class MakeNorm>
basic_block<To> converted_block(basic_block<From> const& b, MakeLayer const& layer, MakeNorm const& norm) {
    using role = linear_role;
    auto const maybe_norm = [&](auto const& n) { return n ? std::optional(norm(*n)) : std::nullopt; };
    auto const norms = [&](auto const& n) {
        return branch_norm_layers<typename To::scalar>{maybe_norm(n.input), maybe_norm(n.output), maybe_norm(n.sum)};
    };
    basic_block<To> to;
    to.attention_norms = norms(b.attention_norms);
    to.mlp_norms = norms(b.mlp_norms);
    to.query_norm = maybe_norm(b.query_norm);
    to.key_norm = maybe_norm(b.key_norm);
    to.query = layer(b.query, layer_place{role::query});
    to.key = layer(b.key, layer_place{role::key});
    to.value = layer(b.value, layer_place{role::value});
    to.output = layer(b.output, layer_place{role::output});
    for (index_t e = 0; e < std::ssize(b.mlps); ++e) {
        auto const& mlp = b.mlps[static_cast<std::size_t>(e)];
        to.mlps.push_back({mlp.gate ? std::optional(layer(*mlp.gate, layer_place{role::gate, e})) : std::nullopt,
                           layer(mlp.up, layer_place{role::up, e}), layer(mlp.down, layer_place{role::down, e})});
    }
    if (b.router) {
        to.router = layer(*b.router, layer_place{role::router});
    }
    if (b.shared_gate) {
        to.shared_gate = layer(*b.shared_gate, layer_place{role::shared_gate});
    }
    to.heads = b.heads;
    to.attention = b.attention;
    to.rotary = b.rotary;
    to.gate_form = b.gate_form;
    to.routing = b.routing;
    to.parallel = b.parallel;
    to.residual = static_cast<typename To::scalar>(b.residual);
    return to;
}

/// The numbers of a block. @throws error naming a layer whose weights are quantized.
template <class Scalar> dense_block<Scalar> dense(block const& b) {
    return converted_block<dense_linear<Scalar>>(
        b,
        [](linear_layer const& layer, layer_place) {
            auto const* weight = std::get_if<matrix>(&layer.weight);
            if (weight == nullptr) {
                throw error("layer '" + layer.name + "'", "is quantized already");
            }
            return dense_linear<Scalar>{weight->cast<Scalar>(), layer.bias.cast<Scalar>()};
        },
        [](norm_layer const& n) {
            return basic_norm_layer<Scalar>{
                n.name, n.type, n.weight.cast<Scalar>(), n.bias.cast<Scalar>(), static_cast<Scalar>(n.eps), n.width};
        });
}

/// Writes such numbers back to a block whose weights are not quantized.
inline void store(dense_block<float> const& d, block& b) {
    auto const write = [](branch_norm_layers<float> const& from, branch_norm_layers<float>& to) {
        to.input = from.input;
    };
    write(d.attention_norms, b.attention_norms);
    write(d.mlp_norms, b.mlp_norms);
    for (layer_place const place : b.places()) {
        b.linear(place).weight = d.linear(place).weight;
        b.linear(place).bias = d.linear(place).bias;
    }
}

} // namespace detent::inline DETENT_ABI
