// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/model/backward.hpp"
#include "detent/model/decoder.hpp"
#include "detent/nn/softmax.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE matrix backward(block const& b, matrix_view x, nn::token_rows rows, matrix g, layer_gradient seen,
                              executor_ref executor) {
    DETENT_EXPECTS(b.norms == norm_placement::before && b.mask == nn::attention_mask::causal);
    matrix const attention_input = b.attention_input(x, executor); // (token, hidden)
    auto const p = b.project(attention_input, rows, executor);
    matrix const context = nn::attention(p.q, p.k, p.v, b.heads, rows, b.attention_form(), executor);
    matrix const middle = x + b.output.forward(context, executor); // (token, hidden), between the two branches
    matrix const mlp_input = b.mlp_input(middle, executor);        // (token, hidden)
    matrix up = b.up.forward(mlp_input, executor);                 // (token, intermediate)

    matrix from_mlp; // (token, hidden), the gradient with respect to mlp_input
    if (b.gate) {
        matrix gate = b.gate->forward(mlp_input, executor); // (token, intermediate)
        seen(linear_role::down, nn::gated({}, gate, up, executor), g);
        auto const back =
            nn::gated_backward({}, std::move(gate), std::move(up), b.down.input_gradient(g, executor), executor);
        seen(linear_role::up, mlp_input, back.up);
        seen(linear_role::gate, mlp_input, back.gate);
        from_mlp = b.up.input_gradient(back.up, executor) + b.gate->input_gradient(back.gate, executor);
    } else {
        seen(linear_role::down, nn::activate(b.activation, up, executor), g);
        matrix const back = nn::activate_backward(b.activation, up, b.down.input_gradient(g, executor), executor);
        seen(linear_role::up, mlp_input, back);
        from_mlp = b.up.input_gradient(back, executor);
    }
    g += b.mlp_norm.input_gradient(middle, from_mlp, executor); // now with respect to `middle`

    seen(linear_role::output, context, g);
    auto back = nn::attention_backward(p.q, p.k, p.v, b.output.input_gradient(g, executor), b.heads, rows,
                                       b.attention_form(), executor);
    if (b.rope) {
        nn::rotation const rotation = b.rope->at(rows.start, rows.length(back.q.rows()));
        rotation.apply_transposed(back.q, b.heads.head_dim, rows, executor);
        rotation.apply_transposed(back.k, b.heads.head_dim, rows, executor);
    }
    seen(linear_role::value, attention_input, back.v);
    seen(linear_role::key, attention_input, back.k);
    seen(linear_role::query, attention_input, back.q);
    matrix from_attention = b.query.input_gradient(back.q, executor); // (token, hidden)
    from_attention += b.key.input_gradient(back.k, executor);
    from_attention += b.value.input_gradient(back.v, executor);
    return g + b.attention_norm.input_gradient(x, from_attention, executor);
}

DETENT_INLINE double backward(decoder const& model, std::span<nn::token_id const> tokens, index_t sequences,
                              double factor, decoder_gradient seen, executor_ref executor) {
    nn::token_rows const rows{.sequences = sequences};
    std::vector<matrix> inputs; // of each block
    matrix x = model.embed(tokens, rows);
    for (block const& b : model.blocks) {
        inputs.push_back(x);
        x = b.forward(std::move(x), rows, executor);
    }
    matrix logits = model.logits(x, executor); // (token, vocabulary)
    double const loss = nn::next_token_loss(logits, tokens, sequences, executor);
    matrix const g_logits = nn::next_token_gradient(std::move(logits), tokens, sequences, factor, executor);
    linear_layer const& head = model.lm_head ? *model.lm_head : model.embeddings;
    matrix g = head.input_gradient(g_logits, executor); // (token, hidden)
    g = model.final_norm.input_gradient(x, g, executor);
    for (auto i = std::ssize(model.blocks) - 1; i >= 0; --i) {
        auto const b = static_cast<std::size_t>(i);
        g = backward(
            model.blocks[b], inputs[b], rows, std::move(g),
            [&](linear_role role, matrix_view input, matrix_view gradient) { seen(i, role, input, gradient); },
            executor);
        inputs.pop_back();
    }
    return loss;
}

} // namespace detent::inline DETENT_ABI
