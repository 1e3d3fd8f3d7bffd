// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/encoder.hpp"
#include "detent/quantizer/layer_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// Hidden states (token, hidden) of `sequences` sequences of equal length.
struct hidden_batch {
    matrix x;
    index_t sequences = 1;
};

/// The hidden states of sentences of any lengths before the first block. Throws like `text_encoder::embed` and
/// `batch_sentences`.
inline std::vector<hidden_batch> embed_batches(text_encoder const& model,
                                               std::span<std::vector<nn::token_id> const> sentences,
                                               executor_ref executor = {}) {
    std::vector<hidden_batch> batches;
    for (auto const& batch : batch_sentences(sentences)) {
        batches.push_back({model.embed(batch.tokens, batch.sentences(), executor), batch.sentences()});
    }
    return batches;
}

/// The hidden states of normalized images (image, channel * row * column) before the first block.
inline std::vector<hidden_batch> embed_batches(image_encoder const& model, matrix_view images,
                                               executor_ref executor = {}) {
    index_t const at_once = std::max<index_t>(1, tokens_at_once / (1 + model.configuration.patches()));
    std::vector<hidden_batch> batches;
    for (index_t first = 0; first < images.rows(); first += at_once) {
        index_t const count = std::min(at_once, images.rows() - first);
        batches.push_back({model.embed(images.middleRows(first, count), executor), count});
    }
    return batches;
}

/// What an encoder is shown while it is quantized.
struct encoder_calibration {
    std::vector<hidden_batch> batches; ///< before the first block
    bool keep_inputs = false;          ///< layers are shown all inputs, not only their Hessian (`layer_inputs::kept`)
    /// Rounds the input of every layer, which solvers then take into account; made for dynamic ranges.
    std::optional<activation_quantizer> activations = {};
};

/// Replaces the weights of all linear layers in `blocks`, those of one encoder in order, by packed ones. Every layer is
/// calibrated with what it reads in the float model, as LLM-FP4 does. Layers that read the same input share its Hessian
/// and the factor of it. @throws error naming the layer that cannot be quantized, or where there are no tokens;
/// `cancelled`. The model is then half done.
inline std::vector<layer_report> quantize_encoder(std::span<block> blocks, quantize_layer quantize,
                                                  encoder_calibration shown, executor_ref executor = {},
                                                  progress const& report = {}) {
    index_t tokens = 0;
    for (auto const& batch : shown.batches) {
        tokens += batch.x.rows();
    }
    if (tokens == 0) {
        throw error("calibration inputs", "have no tokens");
    }
    std::vector<layer_report> reports;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        auto const advance_to = [&](double in_block) {
            advance(report, "quantize", (static_cast<double>(i) + in_block) / static_cast<double>(blocks.size()));
        };
        block& b = blocks[i];
        auto const groups = b.groups();
        std::vector<layer_inputs> inputs; // of each group
        for (auto const& group : groups) {
            auto& known = inputs.emplace_back(b.linear(group.front()).shape().cols);
            if (shown.keep_inputs) {
                known.keep(tokens);
            }
        }
        auto const add = [&](std::size_t group, matrix_view x) {
            stopwatch::section const timed(executor.watch(), work_kind::hessians);
            if (shown.activations) {
                inputs[group].add(shown.activations->round(x, executor), x, executor);
            } else {
                inputs[group].add(x, executor);
            }
        };
        double done = 0; // tokens
        for (auto& [x, sequences] : shown.batches) {
            advance_to(0.5 * done / static_cast<double>(tokens));
            matrix read = b.attention_input(x, executor);
            add(0, read);
            read = b.attention_context(read, {.sequences = sequences}, executor);
            add(1, read);
            b.add_attention(x, read, executor);
            read = b.mlp_input(x, executor);
            add(2, read);
            read = b.mlp_hidden(read, executor);
            add(3, read);
            b.add_mlp(x, read, executor);
            done += static_cast<double>(x.rows());
        }
        for (std::size_t group = 0; group < groups.size(); ++group) {
            for (linear_role const role : groups[group]) {
                advance_to(0.5 + 0.5 * static_cast<double>(group) / static_cast<double>(groups.size()));
                reports.push_back(quantize_linear(b.linear(role), role, inputs[group], quantize, executor));
            }
            inputs[group] = {};
        }
    }
    advance(report, "quantize", 1);
    return reports;
}

/// Quantizes the blocks of an encoder with one quantizer for all layers, composed at compile time or named by a
/// specification.
template <LayerQuantizer Q>
std::vector<layer_report> quantize_encoder(std::span<block> blocks, Q const& q, encoder_calibration shown,
                                           executor_ref executor = {}, progress const& report = {}) {
    evidence_needs const needs = needs_of(q);
    shown.keep_inputs = shown.keep_inputs || needs.all_inputs;
    if (needs.rounded) {
        shown.activations = needs.rounded;
    }
    return quantize_encoder(
        blocks,
        [&](matrix const& w, layer_inputs const& known, linear_role) { return as_quantization(q(w, known, executor)); },
        std::move(shown), executor, report);
}

} // namespace detent::inline DETENT_ABI
