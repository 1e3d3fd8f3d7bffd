// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/model/backward.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_backward.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/decoder.hpp"
#include "detent/nn/softmax.hpp"
#include "detent/nn/tokens.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE matrix backward(block const& b, matrix_view x, nn::token_rows rows, matrix g, layer_gradient seen,
                              executor_ref executor) {
    block_tape<float> tape;
    record(b, x, rows, tape, executor);
    return backward(b, x, rows, tape, std::move(g), seen, nullptr, executor);
}

/// The gradient of `factor` times the cross entropy with respect to the hidden states `x` after the last block, and
/// that cross entropy.
DETENT_INLINE std::pair<matrix, double> loss_gradient(decoder const& model, matrix_view x,
                                                      std::span<nn::token_id const> tokens, index_t sequences,
                                                      double factor, executor_ref executor) {
    auto const& c = model.configuration;
    matrix logits = model.logits(x, executor); // (token, vocabulary)
    double const loss = nn::next_token_loss(logits, tokens, sequences, executor);
    matrix slope; // of c tanh(l / c)
    if (c.logit_cap != 0) {
        slope = (1 - (logits.array() / static_cast<float>(c.logit_cap)).square()).matrix();
    }
    matrix g = nn::next_token_gradient(std::move(logits), tokens, sequences, factor, executor);
    if (c.logit_cap != 0) {
        g.array() *= slope.array();
    }
    if (c.logit_multiplier != 1) {
        g *= static_cast<float>(c.logit_multiplier);
    }
    g = model.head().input_gradient(g, executor); // (token, embedding_width)
    if (model.project_out) {
        g = model.project_out->input_gradient(g, executor);
    }
    if (model.final_norm) {
        g = model.final_norm->input_gradient(x, g, executor);
    }
    return {std::move(g), loss};
}

DETENT_INLINE double backward(decoder const& model, std::span<nn::token_id const> tokens, index_t sequences,
                              double factor, decoder_gradient seen, executor_ref executor) {
    nn::token_rows const rows{.sequences = sequences};
    std::vector<matrix> inputs; // of each block
    matrix x = model.embed(tokens, rows, executor);
    for (block const& b : model.blocks) {
        matrix next = forward(b, x, rows, executor);
        inputs.push_back(std::exchange(x, std::move(next)));
    }
    auto [g, loss] = loss_gradient(model, x, tokens, sequences, factor, executor);
    for (auto i = std::ssize(model.blocks) - 1; i >= 0; --i) {
        auto const see = [&](layer_place place, matrix_view input, matrix_view gradient) {
            seen(i, place, input, gradient);
        };
        g = backward(model.blocks[static_cast<std::size_t>(i)], inputs.back(), rows, std::move(g), see, executor);
        inputs.pop_back();
    }
    return loss;
}

} // namespace detent::inline DETENT_ABI
