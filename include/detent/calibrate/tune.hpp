// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/backward.hpp"
#include "detent/model/decoder.hpp"
#include "detent/nn/adamw.hpp"

namespace detent::inline DETENT_ABI {

/// What a model is tuned on, and how. The default learning rate is for weak columns of small models; it should shrink
/// with the root of the number of trained columns, and far more for all weights.
struct tuning {
    std::span<nn::token_id const> tokens;
    index_t window = 512; ///< tokens of a sequence; the rest of the text after the last whole one is not used
    index_t batch = 16;   ///< sequences whose mean loss makes a step
    index_t at_once = 1;  ///< of these, how many are in memory together
    index_t epochs = 1;
    nn::adamw_options optimizer{.learning_rate = 1e-3};
    double largest_norm = 0.3; ///< longer gradients are scaled down to this
    std::uint64_t seed = 1;    ///< of the order of the windows, a new one in every epoch
};

/// One step.
struct tuning_step {
    double loss = 0;          ///< mean cross entropy of the batch before the step, in nats
    double gradient_norm = 0; ///< before clipping
};

/// Tunes on a text what the linear layers of a decoder's blocks have in high precision, by AdamW on the cross entropy
/// of the next token: the weak columns of quantized layers (weak column tuning, OWQ), and all weights of float ones.
/// Codes, scales, biases, norms, embeddings and the output head stay as they are.
///
/// Forward and backward passes run from the packed bytes; no dense weight is made. From its construction on the weak
/// columns are kept in f32, since a step may be smaller than what f16 can tell apart; `finish` rounds them to the
/// format they had.
/// The same bits come out for any executor, and for a run that was interrupted and resumed.
class decoder_tuner {
public:
    /// `model` and the text must outlive the tuner. @throws error when the text has no window or no layer has anything
    /// to tune.
    decoder_tuner(decoder& model, tuning const& how, executor_ref executor = {})
        : model_(model), how_(how), executor_(executor) {
        DETENT_EXPECTS(how.batch > 0 && how.at_once > 0 && how.epochs >= 0);
        windows_ = how.window > 1 ? std::ssize(how.tokens) / how.window : 0;
        if (windows_ == 0) {
            throw error("tuning text", "has " + std::to_string(how.tokens.size()) + " tokens, which is no window of " +
                                           std::to_string(how.window));
        }
        for (index_t i = 0; i < std::ssize(model.blocks); ++i) {
            block& b = model.blocks[static_cast<std::size_t>(i)];
            for (auto const& group : b.groups()) {
                for (linear_role const role : group) {
                    add(i, role, b.linear(role));
                }
            }
        }
        if (parts_.empty()) {
            throw error("model", "has nothing to tune: all its linear layers are quantized, without weak columns");
        }
    }

    /// How many numbers are trained.
    index_t parameters() const {
        index_t n = 0;
        for (auto const& p : parts_) {
            n += p.gradient.size();
        }
        return n;
    }

    /// Steps done, and steps in all epochs.
    index_t steps_done() const { return done_; }
    index_t steps() const { return how_.epochs * steps_per_epoch(); }

    /// The next step. @throws error when loss or gradient is not finite, the model is then as before the step; and
    /// after `finish`, as `save` and `resume` do.
    tuning_step step() {
        expect_unfinished();
        auto const order = order_of_epoch(done_ / steps_per_epoch());
        index_t const first = done_ % steps_per_epoch() * how_.batch;
        index_t const last = std::min(first + how_.batch, windows_);
        double const factor = 1.0 / static_cast<double>((last - first) * (how_.window - 1)); // mean over tokens
        for (auto& p : parts_) {
            p.gradient.setZero();
        }
        tuning_step result;
        std::vector<nn::token_id> ids;
        for (index_t i = first; i < last; i += how_.at_once) {
            index_t const count = std::min(how_.at_once, last - i);
            ids.clear();
            for (index_t w = i; w < i + count; ++w) {
                auto const window = how_.tokens.subspan(
                    static_cast<std::size_t>(order[static_cast<std::size_t>(w)] * how_.window),
                    static_cast<std::size_t>(how_.window));
                ids.insert(ids.end(), window.begin(), window.end());
            }
            result.loss += factor * backward(
                                        model_, ids, count, factor,
                                        [this](index_t b, linear_role role, matrix_view input, matrix_view gradient) {
                                            collect(b, role, input, gradient);
                                        },
                                        executor_);
        }
        std::vector<std::span<float const>> gradients;
        for (auto const& p : parts_) {
            gradients.emplace_back(p.gradient.data(), static_cast<std::size_t>(p.gradient.size()));
        }
        auto const clipped = nn::clip_norm(gradients, how_.largest_norm, executor_);
        result.gradient_norm = clipped.norm;
        if (!std::isfinite(result.loss) || !std::isfinite(clipped.norm)) {
            throw error("tuning step " + std::to_string(done_ + 1),
                        "the loss is no longer finite; a smaller learning rate may help");
        }
        for (auto& p : parts_) {
            p.gradient *= static_cast<float>(clipped.factor);
            p.optimizer.step(p.values(), {p.gradient.data(), static_cast<std::size_t>(p.gradient.size())}, executor_);
        }
        ++done_;
        return result;
    }

    /// All steps that are left. @throws error as `step`; `cancelled`. What is done then stays done.
    std::vector<tuning_step> run(progress const& report = {}) {
        std::vector<tuning_step> results;
        while (done_ < steps()) {
            advance(report, "tune", static_cast<double>(done_) / static_cast<double>(steps()));
            results.push_back(step());
        }
        advance(report, "tune", 1);
        return results;
    }

    /// Writes what it takes to resume after the last step: the numbers in f32, the state of the optimizer, the number
    /// of steps. @throws error naming the file where it cannot be written, which is then as it was.
    void save(std::filesystem::path const& path) const {
        expect_unfinished();
        io::safetensors_writer file;
        for (auto const& p : parts_) {
            std::string const& name = p.layer->name;
            auto const& state = p.optimizer.state();
            file.add(name + ".tuned", io::dtype::f32, {p.gradient.size()}, bytes_of(p.values()));
            file.add(name + ".first", io::dtype::f32, {p.gradient.size()}, bytes_of(state.first));
            file.add(name + ".second", io::dtype::f32, {p.gradient.size()}, bytes_of(state.second));
        }
        auto const steps = std::bit_cast<std::array<std::uint8_t, sizeof(std::int64_t)>>(std::int64_t{done_});
        file.add("steps", io::dtype::i64, {1}, std::vector(steps.begin(), steps.end()));
        file.save(path);
    }

    /// Goes on where the tuner that wrote this file was: with the same text and options it then does the same steps.
    /// @throws error naming the file and the tensor that is missing, has another size or is not finite; nothing is
    /// changed then.
    void resume(std::filesystem::path const& path) {
        expect_unfinished();
        io::safetensors_file const file(path);
        auto const read = [&](std::string const& name, index_t size, bool signed_numbers = true) {
            auto const& t = file.at(name);
            if (t.type != io::dtype::f32 || t.shape != std::vector{size}) {
                throw error(io::subject_of(path, name), "must be F32 of " + std::to_string(size) + " numbers");
            }
            std::vector<float> values(static_cast<std::size_t>(size));
            std::memcpy(values.data(), t.bytes.data(), t.bytes.size());
            if (!std::ranges::all_of(values, [&](float v) { return std::isfinite(v) && (signed_numbers || v >= 0); })) {
                throw error(io::subject_of(path, name), "holds a number that is not finite, or a negative square");
            }
            return values;
        };
        auto const& count = file.at("steps");
        std::int64_t steps_done = -1;
        if (count.type == io::dtype::i64 && count.bytes.size() == sizeof steps_done) {
            std::memcpy(&steps_done, count.bytes.data(), sizeof steps_done);
        }
        if (steps_done < 0 || steps_done > steps()) {
            throw error(io::subject_of(path, "steps"), "is no number of steps of this tuning");
        }
        std::vector<std::vector<float>> tuned;
        std::vector<nn::adamw_state> states;
        for (auto const& p : parts_) {
            std::string const& name = p.layer->name;
            tuned.push_back(read(name + ".tuned", p.gradient.size()));
            states.push_back({read(name + ".first", p.gradient.size()),
                              read(name + ".second", p.gradient.size(), false), steps_done});
        }
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            std::ranges::copy(tuned[i], parts_[i].values().begin());
            parts_[i].optimizer = nn::adamw(std::move(states[i]), how_.optimizer);
        }
        done_ = steps_done;
    }

    /// Stores weak columns in the format they had, and ends the tuning. @throws error where a number has become too
    /// large for it; nothing is changed then.
    void finish() {
        std::vector<weak_columns> all;
        for (auto const& p : parts_) {
            if (auto const* const packed = std::get_if<packed_matrix>(&p.layer->weight)) {
                auto const& stored = all.emplace_back(packed->weak.stored_as(p.format));
                if (!stored.all_finite()) {
                    throw error("layer '" + p.layer->name + "'", "a tuned weight is too large for its format");
                }
            }
        }
        auto next = all.begin();
        for (auto const& p : parts_) {
            if (auto* const packed = std::get_if<packed_matrix>(&p.layer->weight)) {
                packed->weak = std::move(*next++);
            }
        }
        finished_ = true;
    }

private:
    /// What is trained of one layer.
    struct part {
        linear_layer* layer;
        index_t block;
        linear_role role;
        std::vector<std::int32_t> inputs; ///< mapped ones that meet weak columns; empty where all weights are trained
        float_format format;              ///< that weak columns had
        matrix gradient;                  ///< (weak, out), or (out, in) of all weights
        nn::adamw optimizer;

        std::span<float> values() const {
            auto const size = static_cast<std::size_t>(gradient.size());
            if (auto* const packed = std::get_if<packed_matrix>(&layer->weight)) {
                return {reinterpret_cast<float*>(packed->weak.values().data()), size}; // in f32
            }
            return {std::get<matrix>(layer->weight).data(), size};
        }
    };

    void expect_unfinished() const {
        if (finished_) {
            throw error("tuning", "has finished: its weak columns are no longer in f32");
        }
    }

    void add(index_t block, linear_role role, linear_layer& layer) {
        std::vector<std::int32_t> inputs;
        float_format format = float_format::f32;
        extents shape = layer.shape();
        if (auto* const packed = std::get_if<packed_matrix>(&layer.weight)) {
            if (packed->weak.empty()) {
                return;
            }
            inputs = packed->weak.columns();
            format = packed->weak.format();
            packed->weak = packed->weak.stored_as(float_format::f32);
            shape = {packed->weak.count(), shape.rows};
        }
        parts_.push_back({&layer, block, role, std::move(inputs), format, matrix::Zero(shape.rows, shape.cols),
                          nn::adamw(static_cast<std::size_t>(shape.size()), how_.optimizer)});
    }

    /// Adds what some tokens give to the gradient of a layer.
    void collect(index_t block, linear_role role, matrix_view input, matrix_view gradient) {
        auto const p = std::ranges::find_if(parts_, [&](part const& q) { return q.block == block && q.role == role; });
        if (p == parts_.end()) {
            return;
        }
        if (p->inputs.empty()) {
            nn::add_linear_weight_gradient(gradient, input, p->gradient, executor_);
        } else { // only the mapped inputs of weak columns are needed
            input_map const& map = std::get<packed_matrix>(p->layer->weight).map;
            auto const read = [&](matrix_view mapped) {
                nn::add_linear_weight_gradient(take_columns(mapped, p->inputs), gradient, p->gradient, executor_);
            };
            map.empty() ? read(input) : read(map.apply(input, executor_));
        }
    }

    index_t steps_per_epoch() const { return ceil_div(windows_, how_.batch); }

    /// The windows in the order of an epoch, which depends on nothing else: a Fisher-Yates shuffle.
    std::vector<index_t> order_of_epoch(index_t epoch) const {
        std::vector<index_t> order(static_cast<std::size_t>(windows_));
        std::iota(order.begin(), order.end(), 0);
        std::mt19937_64 random(how_.seed + 0x9E3779B97F4A7C15U * static_cast<std::uint64_t>(epoch));
        for (std::size_t i = order.size(); i > 1; --i) {
            std::swap(order[i - 1], order[random() % i]); // the bias is that of 2^64 / windows
        }
        return order;
    }

    /// The bytes of numbers that outlive the writing of a file.
    static std::span<std::uint8_t const> bytes_of(std::span<float const> values) {
        return {reinterpret_cast<std::uint8_t const*>(values.data()), values.size_bytes()};
    }

    decoder& model_;
    tuning how_;
    executor_ref executor_;
    index_t windows_ = 0;
    index_t done_ = 0; // steps
    bool finished_ = false;
    std::vector<part> parts_;
};

} // namespace detent::inline DETENT_ABI
