// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "detent/calibrate/block_journal.hpp"
#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/core/progress.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/decoder.hpp"
#include "detent/quantizer/layer_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// The text a model is shown while it is quantized, and what of it. A quantizer's `needs()` are added to that.
struct calibration {
    std::span<nn::token_id const> tokens;
    index_t window = 512;        ///< tokens of a sequence
    index_t windows = 128;       ///< how many sequences; all the text has where there are fewer
    bool true_sequential = true; ///< inputs of a layer come from the quantized layers before it in the same block
    bool float_stream = false;   ///< run the float model beside the quantized one, for solvers that compare the two
    bool float_inputs = false;   ///< inputs of every layer are those of the float model (LLM-FP4), not quantized ones
    bool all_experts = false;    ///< show every expert all tokens, not only those that the router sends it
    bool keep_inputs = false;    ///< layers are shown all inputs, not only their Hessian (`layer_inputs::kept`)
    std::filesystem::path learned = {}; ///< directory that keeps what is learned of each block (`block_learner`)
    bool head = false; ///< quantize the output head too; where embeddings are tied it gets a copy of its own
    /// Chooses by what the features of an input are multiplied, given all weights that read it and are quantized, and
    /// all its values (token, in); the scales are folded into the block before it is quantized, at each site where that
    /// is possible
    /// (`fold_obstacle`). Needs float inputs, and all of them kept.
    std::function<float_vector(std::span<matrix const* const> weights, matrix_view inputs)> fold = {};
    /// Changes a block that is about to be quantized, but not what it computes, given the hidden states (token, hidden)
    /// before it in the quantized model and, with a float stream, in the float model.
    std::function<void(block& b, matrix_view x, matrix_view floats, nn::token_rows rows)> prepare = {};
    /// Memory that the activations of all windows may take together; those that do not fit are kept, with the same
    /// bits, in temporary files in `scratch`, by default the system's directory for such files.
    std::uint64_t activation_bytes = std::numeric_limits<std::uint64_t>::max();
    std::filesystem::path scratch = {};
    /// Keeps the blocks that are done, and gives back those that were when the run began; none where nothing is kept.
    block_journal* journal = nullptr;
    /// Rounds the input of every layer, which solvers then take into account; made for dynamic ranges.
    std::optional<activation_quantizer> activations = {};
};

/// Sends all tokens of a tape to feed-forward network `network`, whatever the router says: for statistics of what the
/// layers there read, not for a pass that goes on.
inline void send_all_tokens(block const& b, std::size_t network, block_tape<float>& tape) {
    if (is_routed(b, network)) {
        auto& tokens = tape.mlps[network].tokens;
        tokens.resize(static_cast<std::size_t>(tape.mlp_input.raw.rows()));
        for (std::size_t t = 0; t < tokens.size(); ++t) {
            tokens[t] = {static_cast<index_t>(t), 0};
        }
    }
}

/// Quantizes `model` in place, see `decoder_quantizer`, every layer by `quantize(weights, inputs, place)`.
std::vector<layer_report> quantize_decoder(decoder& model, quantize_layer quantize, calibration const& text,
                                           executor_ref executor = {}, progress const& report = {});

/// Quantizes a decoder whose blocks come one after the other: `model` is the rest of it, whose own blocks are not
/// looked at. Each block is opened once, quantized and closed.
std::vector<layer_report> quantize_decoder(decoder& model, block_sequence& blocks, quantize_layer quantize,
                                           calibration const& text, executor_ref executor = {},
                                           progress const& report = {});

/// Quantizes `model` in place with one quantizer for all layers, composed at compile time or named by a specification:
/// shows it what it needs, besides what `text` says.
template <LayerQuantizer Q>
std::vector<layer_report> quantize_decoder(decoder& model, Q const& q, calibration text, executor_ref executor = {},
                                           progress const& report = {}) {
    evidence_needs needs = needs_of(q);
    text.float_stream = text.float_stream || needs.float_stream;
    text.float_inputs = text.float_inputs || needs.float_inputs;
    text.keep_inputs = text.keep_inputs || needs.all_inputs;
    if (needs.rounded) {
        text.activations = std::move(needs.rounded);
    }
    return quantize_decoder(
        model,
        [&](matrix const& w, layer_inputs const& known, layer_place) { return as_quantization(q(w, known, executor)); },
        text, executor, report);
}

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/quantize_decoder.ipp" // IWYU pragma: export
#endif
