// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "detent/calibrate/learn_block.hpp"
#include "detent/calibrate/learned_file.hpp"
#include "detent/core/eigen.hpp"
#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/progress.hpp"
#include "detent/model/block.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/dense_block.hpp"
#include "detent/model/equivalent_transform.hpp"
#include "detent/model/learned_block.hpp"
#include "detent/model/sites.hpp"
#include "detent/nn/adamw.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/transform/fake_quantizer.hpp"
#include "detent/transform/learning.hpp"

namespace detent::inline DETENT_ABI {

/// The smallest and largest activation of each channel.
struct channel_reach {
    float_vector low, high; // (channel), or empty before anything is seen

    void add(matrix const& x) {
        if (x.rows() == 0) {
            return;
        }
        float_vector const least = x.colwise().minCoeff().transpose(), most = x.colwise().maxCoeff().transpose();
        low = low.size() > 0 ? float_vector(low.cwiseMin(least)) : least;
        high = high.size() > 0 ? float_vector(high.cwiseMax(most)) : most;
    }
};

/// What activations reach at the sites of a block.
struct site_reaches {
    channel_reach attention, context, mlp;
    std::vector<channel_reach> hidden; // of each network
};

DETENT_INLINE site_reaches reaches_of(dense_block<float> const& b, matrix_view x, nn::token_rows rows,
                                      executor_ref executor) {
    site_reaches reaches;
    reaches.hidden.resize(b.mlps.size());
    index_t const length = rows.length(x.rows());
    for (index_t first = 0; first < x.rows(); first += length) {
        block_tape<float> tape;
        record(b, x.middleRows(first, length), {}, tape, executor);
        reaches.attention.add(tape.attention_input.raw);
        reaches.context.add(tape.context.raw);
        reaches.mlp.add(tape.mlp_input.raw);
        for (std::size_t e = 0; e < b.mlps.size(); ++e) {
            reaches.hidden[e].add(tape.mlps[e].hidden.raw);
        }
    }
    return reaches;
}

/// SmoothQuant's scales: largest activation^alpha / largest weight of the quantized layers that read a site^(1 -
/// alpha); 1 for an expert that no token was sent to.
DETENT_INLINE float_vector smooth_scales(dense_block<float> const& b, channel_reach const& reach, double alpha, site at,
                                         index_t network = 0) {
    float const least = 1e-5F;
    if (reach.low.size() == 0) {
        return float_vector::Ones(channels_of(b, at, network));
    }
    float_vector weights = float_vector::Constant(reach.low.size(), least);
    for (layer_place const place : readers_of(b, at, network)) {
        if (is_quantized(place.role)) {
            weights = weights.cwiseMax(b.linear(place).weight.cwiseAbs().colwise().maxCoeff().transpose());
        }
    }
    auto const activations = reach.high.cwiseMax(-reach.low).array().max(least);
    return (activations.pow(static_cast<float>(alpha)) / weights.array().pow(static_cast<float>(1 - alpha))).max(least);
}

DETENT_INLINE equivalent_transform<float> first_transform(dense_block<float> const& b, matrix_view x,
                                                          nn::token_rows rows, learning_options const& how,
                                                          bool rounds_activations, executor_ref executor) {
    site_reaches const reaches = reaches_of(b, x, rows, executor);
    equivalent_transform<float> t;
    auto const of_norm = [&](site at, channel_reach const& reach) {
        equivalent_transform<float>::channels c;
        if (scale_obstacle(b, at).empty()) {
            c.scale = smooth_scales(b, reach, how.alpha, at);
        }
        if (rounds_activations && can_shift(b, at)) {
            c.shift = 0.5F * (reach.low + reach.high);
        }
        return c;
    };
    t.attention = of_norm(site::attention_input, reaches.attention);
    t.mlp = of_norm(site::mlp_input, reaches.mlp);
    // A value channel is read by all query heads of its group.
    float_vector const of_queries = smooth_scales(b, reaches.context, how.alpha, site::context);
    index_t const hd = b.heads.head_dim, group = b.heads.heads / b.heads.kv_heads;
    t.context.scale = float_vector::Zero(b.heads.kv_heads * hd);
    float_vector const middles = 0.5F * (reaches.context.low + reaches.context.high);
    bool const shifts = t.attention.shift.size() > 0 && can_shift(b, site::context); // layers have biases
    if (shifts) {
        t.context.shift = float_vector::Zero(t.context.scale.size());
    }
    for (index_t i = 0; i < of_queries.size(); ++i) {
        index_t const channel = i / (group * hd) * hd + i % hd;
        t.context.scale(channel) = std::max(t.context.scale(channel), of_queries(i));
        if (shifts) {
            t.context.shift(channel) += middles(i) / static_cast<float>(group);
        }
    }
    for (std::size_t e = 0; how.hidden && scale_obstacle(b, site::hidden).empty() && e < b.mlps.size(); ++e) {
        t.hidden.push_back(smooth_scales(b, reaches.hidden[e], how.alpha, site::hidden, static_cast<index_t>(e)));
    }
    if (rounds_activations) {
        t.key_scale = float_vector::Ones(key_scales(b));
    }
    return t;
}

DETENT_INLINE learned learn(learned_block<float> const& b, block_parameters<float> parameters,
                            learning_options const& how, matrix_view x, std::span<matrix const> targets,
                            nn::token_rows rows, executor_ref executor, progress const& report) {
    expect_valid(how.epochs >= 0 && !targets.empty(), "learning", "needs targets, and 0 epochs or more");
    index_t const length = rows.length(x.rows());
    std::vector<nn::adamw> optimizers;
    auto const all_parts = [](block_parameters<float>& p) {
        auto all = p.transform_parts();
        std::ranges::copy(p.clip_parts(), std::back_inserter(all));
        return all;
    };
    std::size_t const transforms = parameters.transform_parts().size();
    for (auto const part : all_parts(parameters)) {
        bool const clips = optimizers.size() >= transforms;
        optimizers.emplace_back(part.size(),
                                nn::adamw_options{.learning_rate = clips ? how.clip_rate : how.transform_rate});
    }
    learned result{std::move(parameters), {}};
    for (index_t epoch = 0; epoch < how.epochs; ++epoch) {
        double sum = 0;
        for (index_t s = 0; s < rows.sequences; ++s) {
            advance(report, "learn",
                    static_cast<double>(epoch * rows.sequences + s) / static_cast<double>(how.epochs * rows.sequences));
            result.parameters.transform.keep_invertible();
            std::vector<matrix_view> wanted;
            for (matrix const& target : targets) {
                wanted.emplace_back(target.middleRows(s * length, length));
            }
            auto gradient = result.parameters.zeros();
            float const loss =
                b.loss(result.parameters, x.middleRows(s * length, length), wanted, {}, gradient, executor);
            if (!std::isfinite(loss)) {
                throw error("learning, epoch " + std::to_string(epoch + 1),
                            "the loss is no longer finite; smaller learning rates may help");
            }
            sum += static_cast<double>(loss);
            auto const at = all_parts(result.parameters);
            auto const slopes = all_parts(gradient);
            for (std::size_t i = 0; i < at.size(); ++i) {
                optimizers[i].step(at[i], slopes[i], executor);
            }
        }
        result.losses.push_back(sum / static_cast<double>(rows.sequences));
    }
    result.parameters.transform.keep_invertible();
    return result;
}

DETENT_INLINE block_learner::block_learner(learning_options const& how, fake_quantizer<float> weights,
                                           std::optional<any_grid> activations, executor_ref executor, progress report)
    : how_(how), weights_(std::move(weights)), activations_(std::move(activations)), executor_(executor),
      progress_(std::move(report)) {}

DETENT_INLINE block_learner& block_learner::keep_in(std::filesystem::path directory) {
    std::error_code problem;
    std::filesystem::create_directories(directory, problem);
    if (!std::filesystem::is_directory(directory)) {
        throw error(directory.string(), "cannot be made: " + problem.message());
    }
    directory_ = std::move(directory);
    return *this;
}

DETENT_INLINE block_learner& block_learner::begin_at(index_t block) {
    losses_.resize(static_cast<std::size_t>(block));
    return *this;
}

template <class Learn>
learned block_learner::kept(learning_options const& how, dense_block<float> const& b, matrix_view x,
                            std::span<matrix const> targets, block_parameters<float> first,
                            Learn const& learn_it) const {
    fingerprint of;
    double const numbers[]{double(how.clip),
                           double(how.transform),
                           double(how.epochs),
                           double(how.probability_bits),
                           how.clip_rate,
                           how.transform_rate,
                           double(weights_.width(0)),
                           double(weights_.format().kind),
                           double(weights_.format().unit)};
    of.add<double>(numbers);
    of.add<float>(weights_.grid().table());
    if (activations_) {
        of.add<float>(activations_->table());
    }
    of.add(b);
    of.add(x);
    for (matrix const& target : targets) {
        of.add(target);
    }
    for (auto const& [name, part] : named_parts(first)) {
        of.add<float>(part);
    }
    auto const path = directory_ / ("block." + std::to_string(losses_.size()) + ".safetensors");
    if (std::filesystem::exists(path)) {
        return load(path, std::move(first), of);
    }
    learned found = learn_it();
    save(found, path, of);
    return found;
}

DETENT_INLINE std::map<layer_place, learned_clip<float>> block_learner::first_clips(dense_block<float> const& b) const {
    std::map<layer_place, learned_clip<float>> clips;
    for (auto const& group : b.groups()) {
        for (layer_place const place : group) {
            extents const shape = b.linear(place).shape();
            clips.emplace(place, learned_clip<float>::of(shape.rows, weights_.tiles_of(shape.cols)));
        }
    }
    return clips;
}

DETENT_INLINE void block_learner::keep_scales(dense_block<float> const& made, block_parameters<float> const& found) {
    scales_.clear();
    for (auto const& group : made.groups()) {
        for (layer_place const place : group) {
            matrix const& weight = made.linear(place).weight;
            auto& [tiles, columns] = scales_[place];
            weights_.forward(weight, found.clip(place), tiles, executor_);
            columns = weight.cols();
        }
    }
}

DETENT_INLINE void block_learner::operator()(block& b, matrix_view x, matrix_view floats, nn::token_rows rows) {
    auto original = dense<float>(b);
    original.heads.probability_bits = how_.probability_bits;
    bool const has_biased_norms = can_shift(original, site::attention_input);
    learning_options const how =
        how_.for_model(weights_.grid().bits(), activations_ ? activations_->bits() : 16, has_biased_norms);
    block_rounding<float> rounding;
    if (activations_) {
        rounding = {fake_quantizer<float>(*activations_, 0), fake_quantizer<float>(*activations_, b.heads.head_dim)};
    }
    block_parameters<float> first;
    if (how.transform) {
        first.transform = first_transform(original, floats, rows, how, activations_.has_value(), executor_);
    }
    if (how.clip) {
        first.clips = first_clips(original);
    }
    std::vector<matrix> targets{forward(b, floats, rows, executor_)};
    if (how.auxiliary) {
        targets.push_back(forward(b, x, rows, executor_));
    }
    learned_block<float> const learner(original, weights_, rounding);
    auto const learn_it = [&] {
        try {
            return learn(learner, first, how, x, targets, rows, executor_, progress_);
        } catch (error const& e) {
            throw error("block " + std::to_string(losses_.size()), e.what());
        }
    };
    learned found = directory_.empty() ? learn_it() : kept(how, original, x, targets, first, learn_it);
    losses_.push_back(std::move(found.losses));
    auto const made = found.parameters.transform.apply(original);
    keep_scales(made, found.parameters);
    store(made, b);
    b.heads.probability_bits = how_.probability_bits;
    if (activations_) {
        b.head_input = activation_quantizer(*activations_);
    }
}

DETENT_INLINE given_range block_learner::scales(layer_place place) const {
    auto const& [learned, columns] = scales_.at(place);
    bool const has_zero = weights_.grid().has_zero();
    given_range given{.scales = {}, .tile = {1, weights_.width(columns)}};
    given.scales.tiles = shape_of(learned.scale);
    given.scales.format = weights_.format();
    given.scales.scales.assign(learned.scale.data(), learned.scale.data() + learned.scale.size());
    given.scales.zeros.assign(learned.zero.data(), learned.zero.data() + (has_zero ? learned.zero.size() : 0));
    return given;
}

} // namespace detent::inline DETENT_ABI
