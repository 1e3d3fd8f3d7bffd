// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "detent/calibrate/activation_store.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/calibrate/quantize_linear.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/sites.hpp"
#include "detent/nn/router.hpp"
#include "detent/nn/tokens.hpp"
#include "detent/transform/channel_scale.hpp"

namespace detent::inline DETENT_ABI {

/// Replaces the weights of all linear layers in the blocks of a decoder by packed ones, block by block (GPTQ, section
/// 4): every layer is calibrated with what the quantized blocks before it make of the text. Layers that read the same
/// input share its Hessian and the factor of it. An expert has Hessians of its own, of the tokens that the router sends
/// it; those of all experts of a block are in memory at once, but not their inputs. Embeddings, norms, biases and
/// routers stay as they are, and the output head unless it is asked for.
class decoder_quantizer {
public:
    /// `model` needs no blocks beside those of the sequence. @throws error when the text is shorter than one window, or
    /// scales are to be folded without float inputs, kept.
    decoder_quantizer(decoder& model, block_sequence& blocks, calibration const& text, quantize_layer quantize,
                      executor_ref executor = {}, progress report = {})
        : model_(model), blocks_(blocks), text_(text), quantize_(quantize), executor_(executor),
          progress_(std::move(report)), space_(text.activation_bytes, scratch_of(text)) {
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

    /// Does it. @throws error naming the layer that cannot be quantized, for example that of an expert to which no
    /// token was sent, unless its quantizer needs none; `cancelled`. The model is then half done.
    std::vector<layer_report> run() {
        begin();
        for (; done_ < blocks_.size(); ++done_) {
            block& b = blocks_.open(done_);
            auto const before = reports_.size();
            run(b);
            if (text_.journal != nullptr) {
                text_.journal->add(b, std::span(reports_).subspan(before), quantized_.x, float_.x);
            }
            blocks_.close(done_);
        }
        if (text_.head) {
            run_head();
        }
        advance(progress_, "quantize", 1);
        return std::move(reports_);
    }

private:
    /// All windows on their way through a block. What is between two steps otherwise is not kept but computed again,
    /// which needs less memory.
    struct stream {
        activation_store x; // (token, hidden), before the block; where its branches are not parallel, then between them
        activation_store context; // (token, heads * head_dim), what attention made, between its two steps
        activation_store middle;  // (token, hidden), between parallel branches

        activation_store& between(block const& b) { return b.parallel ? middle : x; }
    };

    /// Layers that read the same, and what is known about that.
    struct reading {
        site step;                        // when it is read
        std::optional<index_t> network;   // the tokens are those of this network; of none where all are shown
        std::vector<layer_place> readers; // that are quantized
        layer_inputs inputs;
    };

    static std::filesystem::path scratch_of(calibration const& text) {
        return text.scratch.empty() ? std::filesystem::temp_directory_path() : text.scratch;
    }

    /// The hidden states before the first block that is not done.
    void begin() {
        index_t const hidden = model_.configuration.hidden, tokens = text_.windows * text_.window;
        quantized_.x = activation_store(space_, tokens, hidden);
        float_.x = text_.float_stream ? activation_store(space_, tokens, hidden) : activation_store();
        if (text_.journal != nullptr && text_.journal->done() > 0) {
            go_on(*text_.journal);
            return;
        }
        for_rows([&](index_t first, index_t count, nn::token_rows rows) {
            auto const ids = text_.tokens.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
            matrix const x = model_.embed(ids, rows);
            quantized_.x.write(first, x);
            if (text_.float_stream) {
                float_.x.write(first, x);
            }
        });
    }

    /// Begins where another run was stopped.
    void go_on(block_journal const& journal) {
        for (; done_ < journal.done(); ++done_) {
            advance(progress_, "quantize", static_cast<double>(done_) / static_cast<double>(blocks_.size()));
            journal.read(done_, blocks_.open(done_));
            blocks_.close(done_);
        }
        reports_ = journal.reports();
        journal.read(quantized_.x, float_.x);
    }

    /// A copy of all activations.
    activation_store copy_of(activation_store const& from) {
        activation_store copy(space_, from.rows(), from.cols());
        for_rows([&](index_t first, index_t count, nn::token_rows) {
            matrix room;
            copy.write(first, from.read(first, count, room));
        });
        return copy;
    }

    /// Quantizes a block, step by step: an input is collected when the layers before it are quantized already, or else,
    /// all at once, when none is.
    void run(block& b) {
        if (text_.prepare) {
            matrix const none;
            text_.prepare(b, quantized_.x.all(), text_.float_stream ? float_.x.all() : matrix_view(none),
                          {.sequences = text_.windows});
            quantized_.x.release();
            float_.x.release();
        }
        bool const at_once = text_.fold || (!text_.true_sequential && !text_.float_inputs);
        bool const show_floats = at_once || text_.float_inputs;
        block floats = show_floats || text_.float_stream ? b : block{};
        floats.head_input.reset();
        floats.heads.probability_bits = 0;
        block const& shown = show_floats ? floats : b;
        bool const again = at_once && !text_.float_inputs; // when the block is quantized
        activation_store const before = again ? copy_of(quantized_.x) : activation_store();
        std::vector<reading> waiting;
        for (site const now : all_sites) {
            enter(now, shown, quantized_);
            if (text_.float_stream) {
                enter(now, floats, float_);
            }
            if (now == site::mlp_input) {
                sent_ = count_sent(shown);
            }
            std::vector<reading> readings = readings_at(now, b);
            collect(now, shown, floats, readings);
            if (at_once) {
                std::ranges::move(readings, std::back_inserter(waiting));
            } else {
                solve(b, readings);
            }
            leave(now, shown, quantized_);
            if (text_.float_stream) {
                leave(now, floats, float_);
            }
        }
        if (text_.fold) {
            fold_inputs(b, waiting);
        }
        solve(b, waiting);
        if (again) {
            for_batches(site::hidden, [&](index_t first, index_t count, nn::token_rows rows) {
                matrix room;
                quantized_.x.write(first, forward(b, before.read(first, count, room), rows, executor_));
            });
        }
    }

    /// When a layer's input is collected: with that of attention where it is the same.
    static site step_of(block const& b, linear_role role) {
        site const at = site_read_by(b, role);
        bool const in_network = role == linear_role::gate || role == linear_role::up;
        return in_network && b.router ? site::mlp_input : at;
    }

    /// What layers read at a step, with nothing known of it yet; what all tokens are shown comes first.
    std::vector<reading> readings_at(site step, block const& b) const {
        std::vector<reading> all;
        auto const find_or_add = [&](std::optional<index_t> network) -> reading& {
            auto found = std::ranges::find(all, network, &reading::network);
            if (found == all.end()) {
                found = all.insert(network ? all.end() : all.begin(), reading{step, network, {}, {}});
            }
            return *found;
        };
        if (text_.fold && step != site::hidden) {
            find_or_add({}); // also where no quantized layer reads all of it
        }
        for (auto const& group : b.groups()) {
            for (layer_place const place : group) {
                if (step_of(b, place.role) == step) {
                    bool const apart = step == site::mlp_input && is_expert(b, place.expert) && !text_.all_experts;
                    bool const own = step == site::hidden || apart;
                    find_or_add(own ? std::optional(place.expert) : std::nullopt).readers.push_back(place);
                }
            }
        }
        for (reading& r : all) {
            r.inputs = make_inputs(channels_of(b, step, r.network.value_or(0)), tokens_of(b, r));
        }
        return all;
    }

    static bool is_expert(block const& b, index_t network) { return is_routed(b, static_cast<std::size_t>(network)); }

    /// Whether a reading is of those tokens only that the router sends to an expert.
    bool is_sent_some(block const& b, reading const& r) const {
        return r.network && is_expert(b, *r.network) && !text_.all_experts;
    }

    /// How many tokens will be shown.
    index_t tokens_of(block const& b, reading const& r) const {
        bool const counted = is_sent_some(b, r) && !sent_.empty();
        return counted ? sent_[static_cast<std::size_t>(*r.network)] : text_.windows * text_.window;
    }

    /// Collects what is read at step `now`.
    void collect(site now, block const& b, block const& floats, std::vector<reading>& readings) {
        for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
            block_tape<float> tape = tape_at(now, b, quantized_, first, count);
            block_tape<float> beside;
            if (text_.float_stream) {
                beside = tape_at(now, floats, float_, first, count);
            }
            for (reading& r : readings) {
                auto const network = static_cast<std::size_t>(r.network.value_or(0));
                if (r.network) { // the float model is asked about the same tokens
                    if (text_.all_experts) {
                        send_all_tokens(b, network, tape);
                    }
                    if (text_.float_stream) {
                        beside.mlps[network].tokens = tape.mlps[network].tokens;
                    }
                }
                matrix const x = read(r, b, tape);
                add(r.inputs, x, text_.float_stream ? read(r, floats, beside) : matrix{});
            }
        });
    }

    /// What the layers of a reading read (token, in); what is made for that alone is not left on the tape.
    matrix read(reading const& r, block const& b, block_tape<float>& tape) const {
        switch (r.step) {
        case site::attention_input:
            return std::move(tape.attention_input.raw);
        case site::context:
            return std::move(tape.context.raw);
        case site::mlp_input:
            return r.network
                       ? nn::rows_of_tokens(tape.mlp_input.raw, tape.mlps[static_cast<std::size_t>(*r.network)].tokens)
                       : tape.mlp_input.raw;
        case site::hidden:
            break;
        }
        auto const network = static_cast<std::size_t>(*r.network);
        run_hidden(b, network, tape, executor_);
        return std::exchange(tape.mlps[network], {}).hidden.raw;
    }

    /// Folds scales into a block that is not quantized yet; inputs become those of the folded block.
    void fold_inputs(block& b, std::vector<reading>& readings) const {
        for (site const at : all_sites) {
            for (index_t network = 0; network < (at == site::hidden ? std::ssize(b.mlps) : 1); ++network) {
                auto const of_site = [&](reading const& r) {
                    return r.step == at && (at != site::hidden || r.network == network);
                };
                auto const shown = std::ranges::find_if(readings, of_site);
                if (fold_obstacle(b, at, network) || shown->inputs.kept().rows() == 0) { // no token came to this expert
                    continue;
                }
                float_vector scales = text_.fold(weights_reading(b, at, network), shown->inputs.kept());
                if (at == site::context) {
                    scales = shared_by_heads(scales, b.heads);
                }
                fold(b, at, scales, network);
                for (reading& r : readings) {
                    bool const scaled = !r.readers.empty() && site_read_by(b, r.readers.front().role) == at &&
                                        (at != site::hidden || r.network == network);
                    if (scaled) {
                        matrix const folded = r.inputs.kept() * scales.asDiagonal();
                        r.inputs = make_inputs(folded.cols(), folded.rows());
                        add(r.inputs, folded, {});
                    }
                }
            }
        }
    }

    /// Quantizes the output head.
    void run_head() {
        if (!model_.lm_head) {
            model_.lm_head = model_.embeddings;
            model_.lm_head->name = "lm_head";
        }
        layer_inputs inputs = make_inputs(model_.lm_head->shape().cols, text_.windows * text_.window);
        for_batches(site::hidden, [&](index_t first, index_t count, nn::token_rows) {
            auto const read = [&](stream const& s) {
                matrix room;
                return s.x.empty() ? matrix() : model_.head_input(s.x.read(first, count, room), executor_);
            };
            add(inputs, read(quantized_), read(float_));
        });
        reports_.push_back(quantize_linear(*model_.lm_head, {linear_role::head}, inputs, quantize_, executor_));
    }

    layer_inputs make_inputs(index_t features, index_t tokens) const {
        layer_inputs inputs(features);
        if (text_.keep_inputs) {
            inputs.keep(tokens);
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

    /// A tape of what is computed up to step `now`, from what the stream keeps; networks have not run yet.
    block_tape<float> tape_at(site now, block const& b, stream& s, index_t first, index_t count) const {
        block_tape<float> tape;
        tape.keeps = false;
        matrix room, other;
        matrix_view const x = s.x.read(first, count, room);
        switch (now) {
        case site::attention_input:
            enter_attention<linear_layer, float>(b, x, tape, executor_);
            break;
        case site::context:
            tape.context.raw = s.context.read(first, count, other);
            break;
        default:
            if (b.shares_norm()) {
                enter_attention<linear_layer, float>(b, x, tape, executor_);
            }
            tape.middle = s.between(b).read(first, count, other);
            enter_mlp<linear_layer, float>(b, x, tape, executor_);
        }
        return tape;
    }

    /// Makes what `tape_at` takes from the stream at step `now`.
    void enter(site now, block const& b, stream& s) {
        if (now == site::context) {
            s.context = activation_store(space_, s.x.rows(), b.output.shape().cols);
            for_batches(now, [&](index_t first, index_t count, nn::token_rows rows) {
                auto tape = tape_at(site::attention_input, b, s, first, count);
                attend(b, rows, tape, executor_);
                s.context.write(first, tape.context.raw);
            });
        }
    }

    /// How many tokens the router of a block sends to each expert; nothing where nobody asks.
    std::vector<index_t> count_sent(block const& b) {
        std::vector<index_t> sent(b.router && text_.keep_inputs ? b.mlps.size() : 0);
        if (!sent.empty()) {
            for_batches(site::mlp_input, [&](index_t first, index_t count, nn::token_rows) {
                auto const tape = tape_at(site::mlp_input, b, quantized_, first, count);
                for (std::size_t network = 0; network < sent.size(); ++network) {
                    sent[network] += std::ssize(tape.mlps[network].tokens);
                }
            });
        }
        return sent;
    }

    /// Adds what the layers of step `now` make to the stream where they end a branch.
    void leave(site now, block const& b, stream& s) {
        if (now == site::context) {
            s.middle = b.parallel ? activation_store(space_, s.x.rows(), s.x.cols()) : activation_store();
            for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
                auto tape = tape_at(now, b, s, first, count);
                matrix room;
                leave_attention<linear_layer, float>(b, s.x.read(first, count, room), tape, executor_);
                s.between(b).write(first, tape.middle);
            });
            s.context = {};
        } else if (now == site::hidden) {
            for_batches(now, [&](index_t first, index_t count, nn::token_rows) {
                auto tape = tape_at(now, b, s, first, count);
                for (std::size_t network = 0; network < b.mlps.size(); ++network) {
                    run_hidden(b, network, tape, executor_);
                }
                s.x.write(first, leave_mlp(b, tape, executor_));
            });
            s.middle = {};
        }
    }

    /// Calls `f(first token, tokens, rows)` for a few windows at a time.
    template <class F> void for_rows(F const& f) const {
        index_t const batch = windows_at_once(text_.window, widest_activation(model_.configuration));
        for (index_t w = 0; w < text_.windows; w += batch) {
            index_t const count = std::min(batch, text_.windows - w);
            f(w * text_.window, count * text_.window, nn::token_rows{.sequences = count});
        }
    }

    /// The same as a part of step `now`, of which it tells.
    template <class F> void for_batches(site now, F const& f) {
        for_rows([&](index_t first, index_t count, nn::token_rows rows) {
            double const in_step = static_cast<double>(first) / static_cast<double>(text_.windows * text_.window);
            double const in_block = (static_cast<double>(now) + in_step) / static_cast<double>(std::size(all_sites));
            double const all = static_cast<double>(blocks_.size() + (text_.head ? 1 : 0));
            fraction_ = (static_cast<double>(done_) + in_block) / all;
            advance(progress_, "quantize", fraction_);
            f(first, count, rows);
        });
    }

    /// Quantizes the layers of some readings, which are used up.
    void solve(block& b, std::vector<reading>& readings) {
        for (reading& r : readings) {
            bool const some = is_sent_some(b, r);
            for (layer_place const place : r.readers) {
                advance(progress_, "quantize", fraction_);
                linear_layer& layer = b.linear(place);
                try {
                    reports_.push_back(quantize_linear(layer, place, r.inputs, quantize_, executor_));
                } catch (error const& e) {
                    if (!some || r.inputs.hessian().tokens() > 0) {
                        throw;
                    }
                    throw error("layer '" + layer.name + "'",
                                "its expert was sent no token of the calibration text, which all_experts "
                                "(--all-experts) would show it: " +
                                    std::string(e.what()));
                }
                reports_.back().few_tokens = some && r.inputs.hessian().tokens() < layer.shape().cols;
            }
            r.inputs = {};
        }
    }

    decoder& model_;
    block_sequence& blocks_;
    calibration text_;
    quantize_layer quantize_;
    executor_ref executor_;
    progress progress_;
    activation_space space_;
    stream quantized_;          // behind the quantized blocks
    stream float_;              // in the float model
    std::vector<index_t> sent_; // tokens to each expert of the block, where they must be known beforehand
    std::vector<layer_report> reports_;
    index_t done_ = 0;    // blocks
    double fraction_ = 0; // of the whole work
};

DETENT_INLINE std::vector<layer_report> quantize_decoder(decoder& model, quantize_layer quantize,
                                                         calibration const& text, executor_ref executor,
                                                         progress const& report) {
    blocks_in_memory blocks(model);
    return quantize_decoder(model, blocks, quantize, text, executor, report);
}

DETENT_INLINE std::vector<layer_report> quantize_decoder(decoder& model, block_sequence& blocks,
                                                         quantize_layer quantize, calibration const& text,
                                                         executor_ref executor, progress const& report) {
    return decoder_quantizer(model, blocks, text, quantize, executor, report).run();
}

} // namespace detent::inline DETENT_ABI
