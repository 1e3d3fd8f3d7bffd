// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/dense_block.hpp"
#include "detent/model/equivalent_transform.hpp"
#include "detent/transform/fake_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// All that is learned of a block: how its weights are transformed, and how their ranges are clipped.
template <class Scalar> struct block_parameters {
    equivalent_transform<Scalar> transform;
    std::array<std::optional<learned_clip<Scalar>>, 7> clips; ///< by `linear_role`; none where a range is whole

    /// The numbers of the transform and those of the clips, each vector or matrix a span.
    std::vector<std::span<Scalar>> transform_parts() {
        std::vector<std::span<Scalar>> all;
        for (auto* const part : transform.parts()) {
            add(all, *part);
        }
        return all;
    }
    std::vector<std::span<Scalar>> clip_parts() {
        std::vector<std::span<Scalar>> all;
        for (auto& clip : clips) {
            if (clip) {
                add(all, clip->low);
                add(all, clip->high);
            }
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
/// (OmniQuant, section 3.1).
template <class Scalar> class learned_block {
public:
    /// `weights` rounds the weights of every linear layer, `activations` what they and attention read.
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
        return detent::forward(made, activations_, x, rows, tape, executor);
    }

    /// The sum over `targets` of the mean square of what the quantized block makes of `x` less the target; all are
    /// (token, hidden). Adds its gradient to `gradient`.
    Scalar loss(block_parameters<Scalar> const& p, basic_matrix_view<Scalar> x,
                std::span<basic_matrix_view<Scalar> const> targets, nn::token_rows rows,
                block_parameters<Scalar>& gradient, executor_ref executor = {}) const {
        rounded r;
        dense_block<Scalar> const quantized = round(p, r, executor);
        block_tape<Scalar> tape;
        basic_matrix<Scalar> const y = detent::forward(quantized, activations_, x, rows, tape, executor);
        Scalar loss = 0;
        basic_matrix<Scalar> g = basic_matrix<Scalar>::Zero(y.rows(), y.cols());
        for (auto const& target : targets) {
            DETENT_EXPECTS(shape_of(target) == shape_of(y));
            loss += (y - target).squaredNorm() / static_cast<Scalar>(y.size());
            g += Scalar(2) / static_cast<Scalar>(y.size()) * (y - target);
        }
        auto const take = [&](linear_role role, dense_linear<Scalar> slope) {
            auto const i = static_cast<std::size_t>(role);
            std::optional<dense_linear<Scalar>> transformed;
            dense_linear<Scalar> const& made =
                p.transform.empty() ? floats_[role] : transformed.emplace(p.transform.made(floats_, role));
            slope.weight = weights_.backward(made.weight, quantized[role].weight, std::move(slope.weight), r[i],
                                             p.clips[i] ? &*p.clips[i] : nullptr,
                                             gradient.clips[i] ? &*gradient.clips[i] : nullptr, executor);
            if (transformed) {
                p.transform.backward(floats_, role, made, slope, gradient.transform);
            }
        };
        auto const norms = detent::backward(quantized, activations_, x, rows, tape, std::move(g), take, executor);
        p.transform.backward(quantized.attention_norm, norms.attention, quantized.mlp_norm, norms.mlp,
                             gradient.transform);
        return loss;
    }

private:
    using rounded = std::array<typename fake_quantizer<Scalar>::tiles, 7>;

    dense_block<Scalar> round(block_parameters<Scalar> const& p, rounded& r, executor_ref executor) const {
        dense_block<Scalar> b = floats_.without_linears();
        p.transform.apply_to_norms(b);
        for (linear_role const role : block_roles) {
            auto const i = static_cast<std::size_t>(role);
            if (floats_[role].weight.size() == 0) {
                continue;
            }
            std::optional<dense_linear<Scalar>> transformed;
            dense_linear<Scalar> const& made =
                p.transform.empty() ? floats_[role] : transformed.emplace(p.transform.made(floats_, role));
            b[role] = {weights_.forward(made.weight, p.clips[i] ? &*p.clips[i] : nullptr, r[i], executor), made.bias};
        }
        return b;
    }

    dense_block<Scalar> floats_;
    fake_quantizer<Scalar> weights_;
    block_rounding<Scalar> activations_;
};

} // namespace detent::inline DETENT_ABI
