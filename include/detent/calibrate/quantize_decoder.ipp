// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/transform/channel_scale.hpp"
#include "detent/quantizer/layer_quantizer.hpp"

namespace detent::inline DETENT_ABI {

/// Replaces the weights of all linear layers in the blocks of a decoder by packed ones, block by block (GPTQ, section
/// 4): every layer is calibrated with what the quantized blocks before it make of the text. Layers that read the same
/// input share its Hessian and the factor of it. Embeddings, norms and biases stay as they are, and the output head
/// unless it is asked for.
class decoder_quantizer {
public:
    /// @throws error when the text is shorter than one window, or scales are to be folded without float inputs, kept.
    decoder_quantizer(decoder& model, calibration const& text, quantize_layer quantize, executor_ref executor = {},
                      progress report = {})
        : model_(model), text_(text), quantize_(quantize), executor_(executor), progress_(std::move(report)) {
        text_.windows = text.window > 0 ? std::min(text.windows, std::ssize(text.tokens) / text.window) : 0;
        if (text_.windows < 1) {
            throw error("calibration text", "has " + std::to_string(text.tokens.size()) +
                                                " tokens, which gives no window of " + std::to_string(text.window) +
                                                " where " + std::to_string(text.windows) + " are asked for");
        }
        if (text_.fold && !(text_.float_inputs && text_.keep_inputs)) {
            throw error("calibration", "needs float inputs, and all of them kept, where scales are folded");
        }
    }

    /// Does it. @throws error naming the layer that cannot be quantized; `cancelled`. The model is then half done.
    std::vector<layer_report> run() {
        auto const ids = text_.tokens.first(static_cast<std::size_t>(text_.windows * text_.window));
        quantized_.x = model_.embed(ids, {.sequences = text_.windows});
        if (text_.float_stream) {
            float_.x = quantized_.x;
        }
        for (block& b : model_.blocks) {
            run(b);
            ++done_;
        }
        if (text_.head) {
            run_head();
        }
        advance(progress_, "quantize", 1);
        return std::move(reports_);
    }

private:
    enum step : std::size_t { attention_input, attention_context, mlp_input, mlp_hidden, steps };

    /// All windows on their way through a block. What gate and up make is not kept but computed again, which needs less
    /// memory.
    struct stream {
        matrix x;       // (token, hidden)
        matrix context; // (token, heads * head_dim), what attention made, between its two steps
    };

    /// Quantizes a block, step by step: an input is collected when the layers before it are quantized already, or else,
    /// all at once, when none is.
    void run(block& b) {
        if (text_.prepare) {
            text_.prepare(b, quantized_.x, float_.x, {.sequences = text_.windows});
        }
        bool const at_once = text_.fold || (!text_.true_sequential && !text_.float_inputs);
        bool const show_floats = at_once || text_.float_inputs;
        block floats = show_floats || text_.float_stream ? b : block{};
        floats.head_input.reset();
        floats.heads.probability_bits = 0;
        block const& shown = show_floats ? floats : b;
        matrix const before = at_once ? quantized_.x : matrix{};
        auto const groups = b.groups();
        std::array<layer_inputs, steps> inputs;
        for (std::size_t i = 0; i < steps; ++i) {
            auto const now = static_cast<step>(i);
            inputs[i] = make_inputs(b.linear(groups[i].front()));
            enter(now, shown, quantized_);
            if (text_.float_stream) {
                enter(now, floats, float_);
            }
            for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
                matrix const x = input(now, shown, quantized_, first, count);
                matrix const beside = text_.float_stream ? input(now, floats, float_, first, count) : matrix{};
                add(inputs[i], x, beside);
            });
            if (!at_once) {
                solve(b, groups[i], inputs[i]);
                inputs[i] = {};
            }
            leave(now, shown, quantized_);
            if (text_.float_stream) {
                leave(now, floats, float_);
            }
        }
        if (text_.fold) {
            fold_inputs(b, inputs);
        }
        if (at_once) {
            for (std::size_t i = 0; i < steps; ++i) {
                solve(b, groups[i], inputs[i]);
                inputs[i] = {};
            }
            if (!text_.float_inputs) {
                for_batches(mlp_hidden, [&](index_t first, index_t count, nn::token_rows rows) {
                    quantized_.x.middleRows(first, count) = b.forward(before.middleRows(first, count), rows, executor_);
                });
            }
        }
    }

    /// Folds scales into a block that is not quantized yet; `inputs` become those of the folded block.
    void fold_inputs(block& b, std::array<layer_inputs, steps>& inputs) const {
        for (std::size_t i = 0; i < steps; ++i) {
            fold_site const site = fold_sites[i];
            if (fold_obstacle(b, site)) {
                continue;
            }
            std::vector<matrix const*> weights;
            for (linear_role const role : readers_of(b, site)) {
                weights.push_back(&std::get<matrix>(b.linear(role).weight));
            }
            float_vector scales = text_.fold(weights, inputs[i].kept());
            if (site == fold_site::attention_context) {
                scales = shared_by_heads(scales, b.heads);
            }
            fold(b, site, scales);
            matrix const folded = inputs[i].kept() * scales.asDiagonal();
            inputs[i] = make_inputs(b.linear(readers_of(b, site).front()));
            add(inputs[i], folded, {});
        }
    }

    /// Quantizes the output head.
    void run_head() {
        if (!model_.lm_head) {
            model_.lm_head = model_.embeddings;
            model_.lm_head->name = "lm_head";
        }
        layer_inputs inputs = make_inputs(*model_.lm_head);
        for_batches(mlp_hidden, [&](index_t first, index_t count, nn::token_rows) {
            auto const read = [&](stream const& s) {
                return s.x.size() > 0 ? model_.final_norm.forward(s.x.middleRows(first, count), executor_) : matrix();
            };
            add(inputs, read(quantized_), read(float_));
        });
        solve(*model_.lm_head, linear_role::head, inputs);
    }

    layer_inputs make_inputs(linear_layer const& layer) const {
        layer_inputs inputs(layer.shape().cols);
        if (text_.keep_inputs) {
            inputs.keep(text_.windows * text_.window);
        }
        return inputs;
    }

    /// Adds what a layer reads, and what it reads in the float model where that runs beside.
    void add(layer_inputs& inputs, matrix const& x, matrix const& beside) const {
        stopwatch::section const timed(executor_.watch(), work_kind::hessians);
        if (text_.activations) {
            inputs.add(text_.activations->round(x, executor_), text_.float_stream ? beside : x, executor_);
        } else if (text_.float_stream) {
            inputs.add(x, beside, executor_);
        } else {
            inputs.add(x, executor_);
        }
    }

    /// What the layers of step `now` read (count, in).
    matrix input(step now, block const& b, stream const& s, index_t first, index_t count) const {
        switch (now) {
        case attention_input:
            return b.attention_input(s.x.middleRows(first, count), executor_);
        case attention_context:
            return s.context.middleRows(first, count);
        case mlp_input:
            return b.mlp_input(s.x.middleRows(first, count), executor_);
        default:
            return b.mlp_hidden(b.mlp_input(s.x.middleRows(first, count), executor_), executor_);
        }
    }

    /// Makes what `input` of step `now` takes from the stream.
    void enter(step now, block const& b, stream& s) {
        if (now == attention_context) {
            s.context.resize(s.x.rows(), b.output.shape().cols);
            for_batches(now, [&](index_t first, index_t count, nn::token_rows rows) {
                s.context.middleRows(first, count) =
                    b.attention_context(input(attention_input, b, s, first, count), rows, executor_);
            });
        }
    }

    /// Adds what the layers of step `now` make to the stream where they end a residual branch.
    void leave(step now, block const& b, stream& s) {
        if (now == attention_context || now == mlp_hidden) {
            for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
                matrix const read = input(now, b, s, first, count);
                if (now == mlp_hidden) {
                    b.add_mlp(s.x.middleRows(first, count), read, executor_);
                } else {
                    b.add_attention(s.x.middleRows(first, count), read, executor_);
                }
            });
            s.context = {};
        }
    }

    /// Calls `f(first token, tokens, rows)` for a few windows at a time.
    template <class F> void for_batches(step now, F const& f) {
        index_t const batch = windows_at_once(text_.window, model_.configuration.intermediate);
        for (index_t w = 0; w < text_.windows; w += batch) {
            double const in_step = static_cast<double>(w) / static_cast<double>(text_.windows);
            double const in_block = (static_cast<double>(now) + in_step) / static_cast<double>(steps);
            double const all = static_cast<double>(model_.blocks.size() + (text_.head ? 1 : 0));
            fraction_ = (static_cast<double>(done_) + in_block) / all;
            advance(progress_, "quantize", fraction_);
            index_t const count = std::min(batch, text_.windows - w);
            f(w * text_.window, count * text_.window, nn::token_rows{.sequences = count});
        }
    }

    void solve(block& b, std::vector<linear_role> const& group, layer_inputs const& inputs) {
        for (linear_role const role : group) {
            advance(progress_, "quantize", fraction_);
            solve(b.linear(role), role, inputs);
        }
    }

    void solve(linear_layer& layer, linear_role role, layer_inputs const& inputs) {
        reports_.push_back(quantize_linear(layer, role, inputs, quantize_, executor_));
    }

    decoder& model_;
    calibration text_;
    quantize_layer quantize_;
    executor_ref executor_;
    progress progress_;
    stream quantized_; // behind the quantized blocks
    stream float_;     // in the float model
    std::vector<layer_report> reports_;
    std::size_t done_ = 0; // blocks
    double fraction_ = 0;  // of the whole work
};

DETENT_INLINE std::vector<layer_report> quantize_decoder(decoder& model, quantize_layer quantize,
                                                         calibration const& text, executor_ref executor,
                                                         progress const& report) {
    return decoder_quantizer(model, text, quantize, executor, report).run();
}

} // namespace detent::inline DETENT_ABI
