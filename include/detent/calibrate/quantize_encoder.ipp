// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "detent/calibrate/quantize_encoder.hpp"
#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/encoder.hpp"
#include "detent/quantizer/layer_quantizer.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE std::vector<hidden_batch>
embed_batches(text_encoder const& model, std::span<std::vector<nn::token_id> const> sentences, executor_ref executor) {
    std::vector<hidden_batch> batches;
    for (auto const& batch : batch_sentences(sentences)) {
        batches.push_back({model.embed(batch.tokens, batch.sentences(), executor), batch.sentences()});
    }
    return batches;
}

DETENT_INLINE std::vector<hidden_batch> embed_batches(image_encoder const& model, matrix_view images,
                                                      executor_ref executor) {
    index_t const at_once = std::max<index_t>(1, tokens_at_once / model.configuration.tokens());
    std::vector<hidden_batch> batches;
    for (index_t first = 0; first < images.rows(); first += at_once) {
        index_t const count = std::min(at_once, images.rows() - first);
        batches.push_back({model.embed(images.middleRows(first, count), executor), count});
    }
    return batches;
}

/// Sends hidden states through the float block `b` and collects what each of its groups of layers reads.
class encoder_inputs {
public:
    encoder_inputs(block const& b, encoder_calibration const& shown, index_t tokens, executor_ref executor)
        : block_(b), shown_(shown), executor_(executor) {
        for (auto const& group : b.groups()) {
            auto& known = inputs_.emplace_back(b.linear(group.front()).shape().cols);
            if (shown.keep_inputs) {
                known.keep(tokens);
            }
        }
        DETENT_EXPECTS(inputs_.size() == 4); // no encoder has experts
    }

    /// The hidden state `x` before the block becomes that after it.
    void add(hidden_batch& batch) {
        block_tape<float> tape;
        tape.keeps = false;
        matrix_view const x(batch.x);
        enter_attention(block_, x, tape, executor_);
        add(0, tape.attention_input);
        attend(block_, {.sequences = batch.sequences}, tape, executor_);
        add(1, tape.context);
        leave_attention(block_, x, tape, executor_);
        enter_mlp(block_, x, tape, executor_);
        add(2, tape.mlp_input);
        run_hidden(block_, 0, tape, executor_);
        add(3, tape.mlps.front().hidden);
        batch.x = leave_mlp(block_, tape, executor_);
    }

    /// What the layers of group `i` read; it is handed over.
    layer_inputs take(std::size_t i) { return std::move(inputs_[i]); }

private:
    void add(std::size_t group, rounded_activations<float> const& x) {
        stopwatch::section const timed(executor_.watch(), work_kind::hessians);
        if (shown_.activations) {
            inputs_[group].add(shown_.activations->round(x.raw, executor_), x.raw, executor_);
        } else {
            inputs_[group].add(x.raw, executor_);
        }
    }

    block const& block_;
    encoder_calibration const& shown_;
    executor_ref executor_;
    std::vector<layer_inputs> inputs_; // of each group
};

DETENT_INLINE std::vector<layer_report> quantize_encoder(std::span<block> blocks, quantize_layer quantize,
                                                         encoder_calibration shown, executor_ref executor,
                                                         progress const& report) {
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
        encoder_inputs inputs(b, shown, tokens, executor);
        double done = 0; // tokens
        for (auto& batch : shown.batches) {
            advance_to(0.5 * done / static_cast<double>(tokens));
            inputs.add(batch);
            done += static_cast<double>(batch.x.rows());
        }
        auto const groups = b.groups();
        for (std::size_t group = 0; group < groups.size(); ++group) {
            layer_inputs const known = inputs.take(group);
            for (layer_place const place : groups[group]) {
                advance_to(0.5 + 0.5 * static_cast<double>(group) / static_cast<double>(groups.size()));
                reports.push_back(quantize_linear(b.linear(place), place, known, quantize, executor));
            }
        }
    }
    advance(report, "quantize", 1);
    return reports;
}

} // namespace detent::inline DETENT_ABI
