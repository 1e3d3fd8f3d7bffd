// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/calibrate/perplexity.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/decoder.hpp"
#include "detent/solver/hessian.hpp"

namespace detent::inline DETENT_ABI {

/// The text a model is shown while it is quantized.
struct calibration {
    std::span<nn::token_id const> tokens;
    index_t window = 512;        ///< tokens of a sequence
    index_t windows = 128;       ///< how many sequences; all the text has where there are fewer
    bool true_sequential = true; ///< inputs of a layer come from the quantized layers before it in the same block
};

/// What happened to one linear layer.
struct layer_report {
    std::string name;
    extents shape;
    double bits_per_weight = 0;
    double error = 0;   ///< |(W - Q) x|^2 / |W x|^2 over the calibration inputs x
    double seconds = 0; ///< spent on solving and packing
    solve_report solve;
};

/// Quantizes one weight matrix (out, in) given the Hessian of its inputs.
using quantize_layer = function_ref<quantization(matrix const& weights, hessian const& inputs)>;

/// Replaces the weights of all linear layers in the blocks of a decoder by packed ones, block by block (GPTQ, section
/// 4): every layer is calibrated with what the quantized blocks before it make of the text. Layers that read the same
/// input share its Hessian. Embeddings, norms, biases and the output head stay as they are.
class decoder_quantizer {
public:
    /// @throws error when the text is shorter than one window.
    decoder_quantizer(decoder& model, calibration const& text, quantize_layer quantize, executor_ref executor = {},
                      progress report = {})
        : model_(model), text_(text), quantize_(quantize), executor_(executor), progress_(std::move(report)) {
        text_.windows = text.window > 0 ? std::min(text.windows, std::ssize(text.tokens) / text.window) : 0;
        if (text_.windows < 1) {
            throw error("calibration text", "has " + std::to_string(text.tokens.size()) +
                                                " tokens, which gives no window of " + std::to_string(text.window) +
                                                " where " + std::to_string(text.windows) + " are asked for");
        }
    }

    /// Does it. @throws error naming the layer that cannot be quantized; `cancelled`. The model is then half done.
    std::vector<layer_report> run() {
        auto const ids = text_.tokens.first(static_cast<std::size_t>(text_.windows * text_.window));
        x_ = model_.embed(ids, {.sequences = text_.windows});
        for (block& b : model_.blocks) {
            if (text_.true_sequential) {
                run_sequential(b);
            } else {
                run_at_once(b);
            }
            ++done_;
        }
        advance(progress_, "quantize", 1);
        return std::move(reports_);
    }

private:
    enum step : std::size_t { attention_input, attention_context, mlp_input, mlp_hidden, steps };

    /// Each Hessian is collected when the layers before it are quantized already. What the attention made is kept; what
    /// gate and up made is computed twice, which needs less memory.
    void run_sequential(block& b) {
        auto const groups = b.groups();
        hessian inputs;
        collect(inputs, attention_input, x_.cols(),
                [&](matrix_view x, nn::token_rows) { return b.attention_input(x, executor_); });
        solve(b, groups[attention_input], inputs);

        matrix context(x_.rows(), b.output.shape().cols); // (token, heads * head_dim)
        for_batches(attention_context, [&](index_t first, index_t count, nn::token_rows rows) {
            context.middleRows(first, count) =
                b.attention_context(b.attention_input(x_.middleRows(first, count), executor_), rows, executor_);
        });
        inputs = hessian::of(context, executor_);
        solve(b, groups[attention_context], inputs);
        for_batches(attention_context, [&](index_t first, index_t count, nn::token_rows) {
            x_.middleRows(first, count) += b.output.forward(context.middleRows(first, count), executor_);
        });
        context = {};

        collect(inputs, mlp_input, x_.cols(), [&](matrix_view x, nn::token_rows) { return b.mlp_input(x, executor_); });
        solve(b, groups[mlp_input], inputs);

        collect(inputs, mlp_hidden, b.down.shape().cols,
                [&](matrix_view x, nn::token_rows) { return b.mlp_hidden(b.mlp_input(x, executor_), executor_); });
        solve(b, groups[mlp_hidden], inputs);
        for_batches(mlp_hidden, [&](index_t first, index_t count, nn::token_rows) {
            auto x = x_.middleRows(first, count);
            x += b.down.forward(b.mlp_hidden(b.mlp_input(x, executor_), executor_), executor_);
        });
    }

    /// All Hessians are collected while the block still has its float weights.
    void run_at_once(block& b) {
        auto const groups = b.groups();
        std::array<hessian, steps> inputs{hessian(x_.cols()), hessian(b.output.shape().cols), hessian(x_.cols()),
                                          hessian(b.down.shape().cols)};
        for_batches(attention_input, [&](index_t first, index_t count, nn::token_rows rows) {
            matrix x = x_.middleRows(first, count);
            matrix input = b.attention_input(x, executor_);
            inputs[attention_input].add(input, executor_);
            input = b.attention_context(input, rows, executor_);
            inputs[attention_context].add(input, executor_);
            x += b.output.forward(input, executor_);
            input = b.mlp_input(x, executor_);
            inputs[mlp_input].add(input, executor_);
            inputs[mlp_hidden].add(b.mlp_hidden(input, executor_), executor_);
        });
        for (std::size_t s = 0; s < steps; ++s) {
            solve(b, groups[s], inputs[s]);
        }
        for_batches(mlp_hidden, [&](index_t first, index_t count, nn::token_rows rows) {
            x_.middleRows(first, count) = b.forward(x_.middleRows(first, count), rows, executor_);
        });
    }

    /// Calls `f(first token, tokens, rows)` for a few windows at a time.
    template <class F> void for_batches(step now, F const& f) {
        index_t const batch = windows_at_once(text_.window, model_.configuration.intermediate);
        for (index_t w = 0; w < text_.windows; w += batch) {
            double const in_step = static_cast<double>(w) / static_cast<double>(text_.windows);
            double const in_block = (static_cast<double>(now) + in_step) / static_cast<double>(steps);
            fraction_ = (static_cast<double>(done_) + in_block) / static_cast<double>(model_.blocks.size());
            advance(progress_, "quantize", fraction_);
            index_t const count = std::min(batch, text_.windows - w);
            f(w * text_.window, count * text_.window, nn::token_rows{.sequences = count});
        }
    }

    template <class F> void collect(hessian& inputs, step now, index_t features, F const& make_input) {
        inputs = hessian(features);
        for_batches(now, [&](index_t first, index_t count, nn::token_rows rows) {
            inputs.add(make_input(x_.middleRows(first, count), rows), executor_);
        });
    }

    void solve(block& b, std::vector<linear_role> const& group, hessian const& inputs) {
        for (linear_role const role : group) {
            advance(progress_, "quantize", fraction_);
            linear_layer& layer = b.linear(role);
            if (!std::holds_alternative<matrix>(layer.weight)) {
                throw error("layer '" + layer.name + "'", "is quantized already");
            }
            auto const& weights = std::get<matrix>(layer.weight);
            auto const start = std::chrono::steady_clock::now();
            try {
                quantization q = quantize_(weights, inputs);
                std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
                double const whole = inputs.quadratic(weights, executor_);
                double const missed = inputs.quadratic(weights - dequantize(q.weights), executor_);
                reports_.push_back({layer.name, layer.shape(), q.weights.bits_per_weight(),
                                    whole > 0 ? missed / whole : 0, seconds.count(), std::move(q.report)});
                layer.weight = std::move(q.weights);
            } catch (error const& e) {
                throw error("layer '" + layer.name + "'", e.what());
            }
        }
    }

    decoder& model_;
    calibration text_;
    quantize_layer quantize_;
    executor_ref executor_;
    progress progress_;
    matrix x_; // (token, hidden), the input of the block at hand
    std::vector<layer_report> reports_;
    std::size_t done_ = 0; // blocks
    double fraction_ = 0;  // of the whole work
};

/// Quantizes `model` in place; see `decoder_quantizer`.
inline std::vector<layer_report> quantize_decoder(decoder& model, calibration const& text, quantize_layer quantize,
                                                  executor_ref executor = {}, progress const& report = {}) {
    return decoder_quantizer(model, text, quantize, executor, report).run();
}

} // namespace detent::inline DETENT_ABI
