// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "detent/calibrate/fold_transform.hpp"
#include "detent/calibrate/learn_block.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/calibrate/quantize_named.hpp"
#include "detent/model/weak_plan.hpp"
#include "detent/quantizer/catalogue.hpp"

namespace detent::inline DETENT_ABI {

/// Quantizes whole decoders as a specification says: what `named_quantizer` does for one layer, and what a
/// specification says of a model: a budget of weak columns, learning block by block, folding, embeddings and output
/// head.
class named_decoder_quantizer {
public:
    /// Checks the specification against `model` before any work. @throws error when it is impossible.
    named_decoder_quantizer(decoder& model, spec const& s, calibration text, executor_ref executor, progress report)
        : model_(model), spec_(s), plan_(plan_weak_columns(model.blocks.front(), s, bits_of(s))),
          text_(std::move(text)), executor_(executor), progress_(std::move(report)) {
        check(spec_);
    }

    std::vector<layer_report> run() {
        if (spec_.input.folded && !spec_.input.shifted) {
            fold_maps();
        }
        evidence_needs const needs = named_quantizer(spec_).needs();
        text_.float_stream = text_.float_stream || needs.float_stream || spec_.learning;
        text_.float_inputs = text_.float_inputs || needs.float_inputs;
        text_.keep_inputs = text_.keep_inputs || needs.all_inputs;
        text_.head = text_.head || !spec_.embeddings.name.empty();
        text_.activations = needs.rounded;
        if (spec_.input.folded && spec_.input.shifted) {
            text_.fold = [&](std::span<matrix const* const> weights, matrix_view inputs) {
                return shared_shifts(weights, inputs, spec_, executor_);
            };
        }
        std::optional<block_learner> learner;
        if (spec_.learning) {
            learner.emplace(make_learner());
            text_.prepare = std::ref(*learner);
        }
        auto reports = quantize_decoder(
            model_,
            [&](matrix const& w, layer_inputs const& known, linear_role role) {
                named_quantizer const q = for_role(role);
                return learner && role != linear_role::head ? q.with_scales(learner->scales(role))(w, known, executor_)
                                                            : q(w, known, executor_);
            },
            text_, executor_, progress_);
        if (!spec_.embeddings.name.empty()) {
            model_.embeddings.weight =
                quantize_embeddings(std::get<matrix>(model_.embeddings.weight), spec_, executor_).weights;
        }
        return reports;
    }

private:
    block_learner make_learner() const {
        block_learner learner(spec_.learning,
                              fake_quantizer<float>(find_grid(spec_.grid), spec_.granularity.cols, spec_.format),
                              spec_.input.grid.name.empty() ? std::nullopt : std::optional(find_grid(spec_.input.grid)),
                              executor_, progress_);
        if (!text_.learned.empty()) {
            learner.keep_in(text_.learned);
        }
        return learner;
    }

    /// The roles of layers whose inputs can be scaled before, by folding.
    static std::map<linear_role, bool> foldable(block const& b) {
        std::map<linear_role, bool> can;
        for (auto const& group : b.groups()) {
            for (linear_role const role : group) {
                can[role] = std::ranges::any_of(fold_sites, [&](fold_site site) {
                    return !fold_obstacle(b, site) && std::ranges::count(readers_of(b, site), role) > 0;
                });
            }
        }
        return can;
    }

    /// Folds the scales of inputs; layers where that is not possible keep maps of their own.
    void fold_maps() {
        if (spec_.smooth) {
            fold_transform(model_, smooth_of(spec_), text_, executor_, progress_);
        } else {
            fold_transform(model_, shifts_of(spec_), text_, executor_, progress_);
        }
    }

    named_quantizer for_role(linear_role role) {
        auto found = quantizers_.find(role);
        if (found == quantizers_.end()) {
            spec here = with_plan(spec_, plan_, role);
            if (spec_.input.folded && foldable_[role]) {
                here.smooth.reset();
                here.power_of_two = here.input.shifted = false;
            }
            found = quantizers_.emplace(role, named_quantizer(std::move(here))).first;
        }
        return found->second;
    }

    decoder& model_;
    spec spec_;
    weak_plan plan_;
    calibration text_;
    executor_ref executor_;
    progress progress_;
    std::map<linear_role, bool> foldable_ = foldable(model_.blocks.front()); // before any is quantized
    std::map<linear_role, named_quantizer> quantizers_;
};

DETENT_INLINE std::vector<layer_report> quantize_decoder(decoder& model, spec const& s, calibration text,
                                                         executor_ref executor, progress const& report) {
    return named_decoder_quantizer(model, s, std::move(text), executor, report).run();
}

} // namespace detent::inline DETENT_ABI
