// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_backward.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/dense_block.hpp"
#include "detent/model/equivalent_transform.hpp"
#include "detent/nn/linear.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/scale/learned_clip.hpp"
#include "detent/transform/fake_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// All that is learned of a block: how its weights are transformed, and how their ranges are clipped.
template <class Scalar> struct block_parameters {
    equivalent_transform<Scalar> transform;
    std::map<layer_place, learned_clip<Scalar>> clips; ///< of layers whose range is not whole

    /// How the range of a layer's weights is clipped, or nothing.
    learned_clip<Scalar>* clip(layer_place place) {
        return const_cast<learned_clip<Scalar>*>(std::as_const(*this).clip(place));
    }
    learned_clip<Scalar> const* clip(layer_place place) const {
        auto const found = clips.find(place);
        return found != clips.end() ? &found->second : nullptr;
    }

    /// The numbers of the transform and those of the clips, each vector or matrix a span.
    std::vector<std::span<Scalar>> transform_parts() {
        std::vector<std::span<Scalar>> all;
        transform.for_each_part([&](std::string const&, auto& part) { add(all, part); });
        return all;
    }
    std::vector<std::span<Scalar>> clip_parts() {
        std::vector<std::span<Scalar>> all;
        for (auto& [place, clip] : clips) {
            add(all, clip.low);
            add(all, clip.high);
        }
        return all;
    }

    /// Zeros in the same shape.
    block_parameters zeros() const {
        block_parameters z{transform.zeros(), clips};
        for (auto const part : z.clip_parts()) {
            std::ranges::fill(part, Scalar(0));
        }
        return z;
    }

private:
    template <class Part> static void add(std::vector<std::span<Scalar>>& all, Part& part) {
        if (part.size() > 0) {
            all.emplace_back(part.data(), static_cast<std::size_t>(part.size()));
        }
    }
};

/// A float block whose weights are transformed and then rounded as its parameters say, and what it loses by that
/// (OmniQuant, section 3.1). Routers and gates of shared experts are transformed but not rounded.
template <class Scalar> class learned_block {
public:
    /// `weights` rounds the weights of linear layers, `activations` what they and attention read.
    learned_block(dense_block<Scalar> floats, fake_quantizer<Scalar> weights, block_rounding<Scalar> activations = {})
        : floats_(std::move(floats)), weights_(std::move(weights)), activations_(std::move(activations)) {}

    dense_block<Scalar> const& floats() const { return floats_; }
    fake_quantizer<Scalar> const& weights() const { return weights_; }

    /// The block with rounded weights.
    dense_block<Scalar> quantized(block_parameters<Scalar> const& p, executor_ref executor = {}) const {
        rounded r;
        return round(p, r, executor);
    }

    /// The hidden state after the block with rounded weights and activations, given that before it, `x`.
    basic_matrix<Scalar> forward(dense_block<Scalar> const& made, basic_matrix_view<Scalar> x, nn::token_rows rows,
                                 executor_ref executor = {}) const {
        block_tape<Scalar> tape;
        tape.rounding = &activations_;
        tape.keeps = false;
        return detent::forward(made, x, rows, tape, executor);
    }

    /// The sum over `targets` of the mean square of what the quantized block makes of `x` less the target; all are
    /// (token, hidden). Adds its gradient to `gradient`.
    Scalar loss(block_parameters<Scalar> const& p, basic_matrix_view<Scalar> x,
                std::span<basic_matrix_view<Scalar> const> targets, nn::token_rows rows,
                block_parameters<Scalar>& gradient, executor_ref executor = {}) const {
        rounded r;
        dense_block<Scalar> const quantized = round(p, r, executor);
        block_tape<Scalar> tape;
        tape.rounding = &activations_;
        basic_matrix<Scalar> const y = detent::forward(quantized, x, rows, tape, executor);
        Scalar loss = 0;
        basic_matrix<Scalar> g = basic_matrix<Scalar>::Zero(y.rows(), y.cols());
        for (auto const& target : targets) {
            DETENT_EXPECTS(shape_of(target) == shape_of(y));
            loss += (y - target).squaredNorm() / static_cast<Scalar>(y.size());
            g += Scalar(2) / static_cast<Scalar>(y.size()) * (y - target);
        }
        auto const take = [&](layer_place place, basic_matrix_view<Scalar> input, basic_matrix_view<Scalar> g_out) {
            bool const is_learned = is_quantized(place.role) || !p.transform.empty();
            if (is_learned && g_out.rows() > 0) { // experts may have got no token
                add_gradient(p, place, quantized.linear(place), r, input, g_out, gradient, executor);
            }
        };
        norm_gradients<Scalar> norms;
        if (p.transform.attention.scale.size() > 0) {
            norms.attention = quantized.attention_norms.input->zeros();
        }
        if (p.transform.mlp.scale.size() > 0) {
            norms.mlp = quantized.mlp_norms.input->zeros();
        }
        detent::backward(quantized, x, rows, tape, std::move(g), take, &norms, executor);
        p.transform.backward(quantized, norms, gradient.transform);
        return loss;
    }

private:
    using rounded = std::map<layer_place, typename fake_quantizer<Scalar>::tiles>;

    dense_block<Scalar> round(block_parameters<Scalar> const& p, rounded& r, executor_ref executor) const {
        dense_block<Scalar> b = converted_block<dense_linear<Scalar>>(
            floats_,
            [&](dense_linear<Scalar> const& layer, layer_place place) {
                std::optional<dense_linear<Scalar>> transformed;
                auto const& made = p.transform.empty() ? layer : transformed.emplace(p.transform.made(floats_, place));
                if (!is_quantized(place.role)) {
                    return made;
                }
                return dense_linear<Scalar>{weights_.forward(made.weight, p.clip(place), r[place], executor),
                                            made.bias};
            },
            [](basic_norm_layer<Scalar> const& norm) { return norm; });
        p.transform.apply_to_norms(b);
        return b;
    }

    /// Adds what one layer, which read `input` and whose result the loss has the gradient `g` with, gives to the
    /// gradient of the parameters.
    void add_gradient(block_parameters<Scalar> const& p, layer_place place, dense_linear<Scalar> const& quantized,
                      rounded const& r, basic_matrix_view<Scalar> input, basic_matrix_view<Scalar> g,
                      block_parameters<Scalar>& gradient, executor_ref executor) const {
        dense_linear<Scalar> slope{basic_matrix<Scalar>::Zero(quantized.weight.rows(), quantized.weight.cols()),
                                   basic_vector<Scalar>::Zero(quantized.bias.size())};
        nn::add_linear_weight_gradient(g, input, slope.weight, executor);
        if (slope.bias.size() > 0) {
            nn::add_linear_bias_gradient(g, slope.bias, executor);
        }
        std::optional<dense_linear<Scalar>> transformed;
        dense_linear<Scalar> const& made =
            p.transform.empty() ? floats_.linear(place) : transformed.emplace(p.transform.made(floats_, place));
        if (is_quantized(place.role)) {
            slope.weight = weights_.backward(made.weight, quantized.weight, std::move(slope.weight), r.at(place),
                                             p.clip(place), gradient.clip(place), executor);
        }
        if (transformed) {
            p.transform.backward(floats_, place, made, slope, gradient.transform);
        }
    }

    dense_block<Scalar> floats_;
    fake_quantizer<Scalar> weights_;
    block_rounding<Scalar> activations_;
};

} // namespace detent::inline DETENT_ABI
