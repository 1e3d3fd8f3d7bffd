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

#include "detent/calibrate/tune.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/io/safetensors.hpp"
#include "detent/model/backward.hpp"
#include "detent/model/decoder.hpp"
#include "detent/nn/adamw.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE decoder_tuner::decoder_tuner(decoder& model, tuning const& how, executor_ref executor)
    : model_(model), how_(how), executor_(executor) {
    expect_valid(how.batch > 0 && how.at_once > 0 && how.epochs >= 0, "tuning",
                 "needs batches of one sequence or more, and 0 epochs or more");
    windows_ = how.window > 1 ? std::ssize(how.tokens) / how.window : 0;
    if (windows_ == 0) {
        throw error("tuning text", "has " + std::to_string(how.tokens.size()) + " tokens, which is no window of " +
                                       std::to_string(how.window));
    }
    for (index_t i = 0; i < std::ssize(model.blocks); ++i) {
        block& b = model.blocks[static_cast<std::size_t>(i)];
        for (auto const& group : b.groups()) {
            for (layer_place const place : group) {
                add(i, place, b.linear(place));
            }
        }
    }
    if (parts_.empty()) {
        throw error("model", "has nothing to tune: all its linear layers are quantized, without weak columns");
    }
}

DETENT_INLINE index_t decoder_tuner::parameters() const {
    index_t n = 0;
    for (auto const& p : parts_) {
        n += p.gradient.size();
    }
    return n;
}

DETENT_INLINE tuning_step decoder_tuner::step() {
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
            auto const window =
                how_.tokens.subspan(static_cast<std::size_t>(order[static_cast<std::size_t>(w)] * how_.window),
                                    static_cast<std::size_t>(how_.window));
            ids.insert(ids.end(), window.begin(), window.end());
        }
        result.loss += factor * backward(
                                    model_, ids, count, factor,
                                    [this](index_t b, layer_place place, matrix_view input, matrix_view gradient) {
                                        collect(b, place, input, gradient);
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

DETENT_INLINE std::vector<tuning_step> decoder_tuner::run(progress const& report) {
    std::vector<tuning_step> results;
    while (done_ < steps()) {
        advance(report, "tune", static_cast<double>(done_) / static_cast<double>(steps()));
        results.push_back(step());
    }
    advance(report, "tune", 1);
    return results;
}

DETENT_INLINE void decoder_tuner::save(std::filesystem::path const& path) const {
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

DETENT_INLINE void decoder_tuner::resume(std::filesystem::path const& path) {
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
        states.push_back(
            {read(name + ".first", p.gradient.size()), read(name + ".second", p.gradient.size(), false), steps_done});
    }
    for (std::size_t i = 0; i < parts_.size(); ++i) {
        std::ranges::copy(tuned[i], parts_[i].values().begin());
        parts_[i].optimizer = nn::adamw(std::move(states[i]), how_.optimizer);
    }
    done_ = steps_done;
}

DETENT_INLINE void decoder_tuner::finish() {
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

DETENT_INLINE std::span<float> decoder_tuner::part::values() const {
    auto const size = static_cast<std::size_t>(gradient.size());
    if (auto* const packed = std::get_if<packed_matrix>(&layer->weight)) {
        return {reinterpret_cast<float*>(packed->weak.values().data()), size}; // in f32
    }
    return {std::get<matrix>(layer->weight).data(), size};
}

DETENT_INLINE void decoder_tuner::expect_unfinished() const {
    if (finished_) {
        throw error("tuning", "has finished: its weak columns are no longer in f32");
    }
}

DETENT_INLINE void decoder_tuner::add(index_t block, layer_place place, linear_layer& layer) {
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
    parts_.push_back({&layer, block, place, std::move(inputs), format, matrix::Zero(shape.rows, shape.cols),
                      nn::adamw(static_cast<std::size_t>(shape.size()), how_.optimizer)});
}

DETENT_INLINE void decoder_tuner::collect(index_t block, layer_place place, matrix_view input, matrix_view gradient) {
    auto const p = std::ranges::find_if(parts_, [&](part const& q) { return q.block == block && q.place == place; });
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

DETENT_INLINE std::vector<index_t> decoder_tuner::order_of_epoch(index_t epoch) const {
    std::vector<index_t> order(static_cast<std::size_t>(windows_));
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(how_.seed + 0x9E3779B97F4A7C15U * static_cast<std::uint64_t>(epoch));
    for (std::size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[random() % i]); // the bias is that of 2^64 / windows
    }
    return order;
}

DETENT_INLINE std::span<std::uint8_t const> decoder_tuner::bytes_of(std::span<float const> values) {
    return {reinterpret_cast<std::uint8_t const*>(values.data()), values.size_bytes()};
}

} // namespace detent::inline DETENT_ABI
