// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <iterator>
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
#include "detent/model/dense_block.hpp"
#include "detent/model/equivalent_transform.hpp"
#include "detent/model/learned_block.hpp"
#include "detent/nn/adamw.hpp"
#include "detent/scale/given_range.hpp"
#include "detent/transform/fake_quantizer.hpp"
#include "detent/transform/learning.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE equivalent_transform<float> first_transform(dense_block<float> const& b, matrix_view x,
                                                          nn::token_rows rows, learning_options const& how,
                                                          bool rounds_activations, executor_ref executor) {
    struct reach {
        float_vector low, high;

        void add(matrix const& x) {
            float_vector const least = x.colwise().minCoeff().transpose(), most = x.colwise().maxCoeff().transpose();
            low = low.size() > 0 ? float_vector(low.cwiseMin(least)) : least;
            high = high.size() > 0 ? float_vector(high.cwiseMax(most)) : most;
        }
    };
    reach attention, context, mlp, hidden;
    index_t const length = rows.length(x.rows());
    for (index_t first = 0; first < x.rows(); first += length) {
        block_tape<float> tape;
        forward<float>(b, {}, x.middleRows(first, length), {}, tape, executor);
        attention.add(tape.attention_input.raw);
        context.add(tape.context.raw);
        mlp.add(tape.mlp_input.raw);
        hidden.add(tape.hidden.raw);
    }
    float const least = 1e-5F;
    auto const scales = [&](reach const& r, std::initializer_list<linear_role> readers) {
        float_vector weights = float_vector::Constant(r.low.size(), least);
        for (linear_role const role : readers) {
            if (b[role].weight.size() > 0) {
                weights = weights.cwiseMax(b[role].weight.cwiseAbs().colwise().maxCoeff().transpose());
            }
        }
        auto const activations = r.high.cwiseMax(-r.low).array().max(least);
        return float_vector(
            (activations.pow(static_cast<float>(how.alpha)) / weights.array().pow(static_cast<float>(1 - how.alpha)))
                .max(least));
    };
    auto const shifts = [&](reach const& r, dense_norm<float> const& norm) {
        return rounds_activations && norm.bias.size() > 0 ? float_vector(0.5F * (r.low + r.high)) : float_vector{};
    };
    equivalent_transform<float> t;
    t.attention_scale = scales(attention, {linear_role::query, linear_role::key, linear_role::value});
    t.attention_shift = shifts(attention, b.attention_norm);
    t.mlp_scale = scales(mlp, {linear_role::gate, linear_role::up});
    t.mlp_shift = shifts(mlp, b.mlp_norm);
    // A value channel is read by all query heads of its group.
    float_vector const of_queries = scales(context, {linear_role::output});
    index_t const hd = b.heads.head_dim, group = b.heads.heads / b.heads.kv_heads;
    t.context_scale = float_vector::Zero(b.heads.kv_heads * hd);
    float_vector const middles = 0.5F * (context.low + context.high);
    if (t.attention_shift.size() > 0) {
        t.context_shift = float_vector::Zero(t.context_scale.size());
    }
    for (index_t i = 0; i < of_queries.size(); ++i) {
        index_t const channel = i / (group * hd) * hd + i % hd;
        t.context_scale(channel) = std::max(t.context_scale(channel), of_queries(i));
        if (t.context_shift.size() > 0) {
            t.context_shift(channel) += middles(i) / static_cast<float>(group);
        }
    }
    if (how.hidden && b.has_gate()) {
        t.hidden_scale = scales(hidden, {linear_role::down});
    }
    if (rounds_activations) {
        t.key_scale = float_vector::Ones(equivalent_transform<float>::key_scales(b));
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

DETENT_INLINE void block_learner::operator()(block& b, matrix_view x, matrix_view floats, nn::token_rows rows) {
    auto original = dense<float>(b);
    original.heads.probability_bits = how_.probability_bits;
    learning_options const how = how_.for_model(weights_.grid().bits(), activations_ ? activations_->bits() : 16,
                                                original.attention_norm.bias.size() > 0);
    block_rounding<float> rounding;
    if (activations_) {
        rounding = {fake_quantizer<float>(*activations_, 0), fake_quantizer<float>(*activations_, b.heads.head_dim)};
    }
    block_parameters<float> first;
    if (how.transform) {
        first.transform = first_transform(original, floats, rows, how, activations_.has_value(), executor_);
    }
    for (linear_role const role : block_roles) {
        auto const& w = original[role].weight;
        if (how.clip && w.size() > 0) {
            first.clips[static_cast<std::size_t>(role)] =
                learned_clip<float>::of(w.rows(), weights_.tiles_of(w.cols()));
        }
    }
    std::vector<matrix> targets{b.forward(floats, rows, executor_)};
    if (how.auxiliary) {
        targets.push_back(b.forward(x, rows, executor_));
    }
    learned_block<float> const learner(original, weights_, rounding);
    auto const learn_it = [&] { return learn(learner, first, how, x, targets, rows, executor_, progress_); };
    learned found = directory_.empty() ? learn_it() : kept(how, original, x, targets, first, learn_it);
    losses_.push_back(std::move(found.losses));
    auto const made = found.parameters.transform.apply(original);
    for (linear_role const role : block_roles) {
        auto const i = static_cast<std::size_t>(role);
        if (made[role].weight.size() > 0) {
            auto const& clip = found.parameters.clips[i];
            weights_.forward(made[role].weight, clip ? &*clip : nullptr, scales_[i], executor_);
            columns_[i] = made[role].weight.cols();
        }
    }
    store(made, b);
    b.heads.probability_bits = how_.probability_bits;
    if (activations_) {
        b.head_input = activation_quantizer(*activations_);
    }
}

DETENT_INLINE given_range block_learner::scales(linear_role role) const {
    auto const i = static_cast<std::size_t>(role);
    auto const& learned = scales_[i];
    bool const has_zero = weights_.grid().has_zero();
    given_range given{.scales = {}, .tile = {1, weights_.width(columns_[i])}};
    given.scales.tiles = shape_of(learned.scale);
    given.scales.format = weights_.format();
    given.scales.scales.assign(learned.scale.data(), learned.scale.data() + learned.scale.size());
    given.scales.zeros.assign(learned.zero.data(), learned.zero.data() + (has_zero ? learned.zero.size() : 0));
    return given;
}

} // namespace detent::inline DETENT_ABI
