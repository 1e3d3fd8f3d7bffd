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
#include "detent/core/stopwatch.hpp"
#include "detent/matrix/dequantize.hpp"
#include "detent/matrix/solution.hpp"
#include "detent/model/decoder.hpp"
#include "detent/solver/layer_inputs.hpp"

namespace detent::inline DETENT_ABI {

/// The text a model is shown while it is quantized.
struct calibration {
    std::span<nn::token_id const> tokens;
    index_t window = 512;        ///< tokens of a sequence
    index_t windows = 128;       ///< how many sequences; all the text has where there are fewer
    bool true_sequential = true; ///< inputs of a layer come from the quantized layers before it in the same block
    bool float_stream = false;   ///< run the float model beside the quantized one, for solvers that compare the two
};

/// What happened to one linear layer.
struct layer_report {
    std::string name;
    extents shape;
    double bits_per_weight = 0; ///< all that is stored
    double effective_bits = 0;  ///< `packed_matrix::effective_bits`
    index_t weak_columns = 0;
    double error = 0;       ///< |(W - Q) x|^2 / |W x|^2 over the calibration inputs x
    double float_error = 0; ///< with a float stream |W x~ - Q x|^2 / |W x~|^2, where x~ are the float model's inputs
    double seconds = 0; ///< spent on solving and packing
    solve_report solve;
};

/// Quantizes one weight matrix (out, in) given what is known about its inputs, of which most need only the Hessian, and
/// what it does in its block.
using quantize_layer =
    function_ref<quantization(matrix const& weights, layer_inputs const& inputs, linear_role role)>;

/// Replaces the weights of all linear layers in the blocks of a decoder by packed ones, block by block (GPTQ, section
/// 4): every layer is calibrated with what the quantized blocks before it make of the text. Layers that read the same
/// input share its Hessian and the factor of it. Embeddings, norms, biases and the output head stay as they are.
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
        quantized_.x = model_.embed(ids, {.sequences = text_.windows});
        if (text_.float_stream) {
            float_.x = quantized_.x;
        }
        for (block& b : model_.blocks) {
            run(b);
            ++done_;
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
        bool const at_once = !text_.true_sequential;
        block const floats = at_once || text_.float_stream ? b : block{};
        block const& shown = at_once ? floats : b;
        matrix const before = at_once ? quantized_.x : matrix{};
        auto const groups = b.groups();
        std::array<layer_inputs, steps> inputs;
        for (std::size_t i = 0; i < steps; ++i) {
            auto const now = static_cast<step>(i);
            inputs[i] = layer_inputs(b.linear(groups[i].front()).shape().cols);
            enter(now, shown, quantized_);
            if (text_.float_stream) {
                enter(now, floats, float_);
            }
            for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
                matrix const x = input(now, shown, quantized_, first, count);
                matrix const beside = text_.float_stream ? input(now, floats, float_, first, count) : matrix{};
                stopwatch::section const timed(executor_.watch(), work::hessians);
                if (text_.float_stream) {
                    inputs[i].add(x, beside, executor_);
                } else {
                    inputs[i].add(x, executor_);
                }
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
        if (at_once) {
            for (std::size_t i = 0; i < steps; ++i) {
                solve(b, groups[i], inputs[i]);
                inputs[i] = {};
            }
            for_batches(mlp_hidden, [&](index_t first, index_t count, nn::token_rows rows) {
                quantized_.x.middleRows(first, count) = b.forward(before.middleRows(first, count), rows, executor_);
            });
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
            linear_layer const& last = now == mlp_hidden ? b.down : b.output;
            for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
                s.x.middleRows(first, count) += last.forward(input(now, b, s, first, count), executor_);
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
            fraction_ = (static_cast<double>(done_) + in_block) / static_cast<double>(model_.blocks.size());
            advance(progress_, "quantize", fraction_);
            index_t const count = std::min(batch, text_.windows - w);
            f(w * text_.window, count * text_.window, nn::token_rows{.sequences = count});
        }
    }

    void solve(block& b, std::vector<linear_role> const& group, layer_inputs const& inputs) {
        for (linear_role const role : group) {
            advance(progress_, "quantize", fraction_);
            linear_layer& layer = b.linear(role);
            if (!std::holds_alternative<matrix>(layer.weight)) {
                throw error("layer '" + layer.name + "'", "is quantized already");
            }
            auto const& weights = std::get<matrix>(layer.weight);
            auto const start = std::chrono::steady_clock::now();
            try {
                quantization q = [&] {
                    stopwatch::section const timed(executor_.watch(), work::solving);
                    return quantize_(weights, inputs, role);
                }();
                std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
                stopwatch::section const timed(executor_.watch(), work::layer_errors);
                matrix const decoded = dequantize(q.weights);
                auto const share = [](double missed, double whole) { return whole > 0 ? missed / whole : 0; };
                layer_report report{.name = layer.name,
                                    .shape = layer.shape(),
                                    .bits_per_weight = q.weights.bits_per_weight(),
                                    .effective_bits = q.weights.effective_bits(),
                                    .weak_columns = q.weights.weak.count(),
                                    .error = share(inputs.hessian().quadratic(weights - decoded, executor_),
                                                   inputs.hessian().quadratic(weights, executor_)),
                                    .seconds = seconds.count(),
                                    .solve = std::move(q.report)};
                if (inputs.has_difference()) {
                    matrix const nothing = matrix::Zero(weights.rows(), weights.cols());
                    report.float_error = share(inputs.output_error(weights, decoded, executor_),
                                               inputs.output_error(weights, nothing, executor_));
                }
                reports_.push_back(std::move(report));
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
    stream quantized_; // behind the quantized blocks
    stream float_;     // in the float model
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
