// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/core/progress.hpp"
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
std::vector<hidden_batch> embed_batches(text_encoder const& model, std::span<std::vector<nn::token_id> const> sentences,
                                        executor_ref executor = {});

/// The hidden states of normalized images (image, channel * row * column) before the first block.
std::vector<hidden_batch> embed_batches(image_encoder const& model, matrix_view images, executor_ref executor = {});

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
std::vector<layer_report> quantize_encoder(std::span<block> blocks, quantize_layer quantize, encoder_calibration shown,
                                           executor_ref executor = {}, progress const& report = {});

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
        [&](matrix const& w, layer_inputs const& known, layer_place) { return as_quantization(q(w, known, executor)); },
        std::move(shown), executor, report);
}

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/quantize_encoder.ipp" // IWYU pragma: export
#endif
