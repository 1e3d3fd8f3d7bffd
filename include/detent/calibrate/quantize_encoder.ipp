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
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/evidence/layer_inputs.hpp"
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
    index_t const at_once = std::max<index_t>(1, tokens_at_once / (1 + model.configuration.patches()));
    std::vector<hidden_batch> batches;
    for (index_t first = 0; first < images.rows(); first += at_once) {
        index_t const count = std::min(at_once, images.rows() - first);
        batches.push_back({model.embed(images.middleRows(first, count), executor), count});
    }
    return batches;
}

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

} // namespace detent::inline DETENT_ABI
