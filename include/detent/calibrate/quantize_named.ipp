// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "detent/calibrate/fold_transform.hpp"
#include "detent/calibrate/learn_block.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/calibrate/quantize_named.hpp"
#include "detent/model/block_sequence.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/outline.hpp"
#include "detent/model/sites.hpp"
#include "detent/model/weak_plan.hpp"
#include "detent/quantizer/catalogue.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE void check(spec const& s, decoder const& model) {
    check(s);
    for (block const& b : model.blocks) {
        plan_weak_columns(b, s, bits_of(s));
    }
}

/// Quantizes whole decoders as a specification says: what `named_quantizer` does for one layer, and what a
/// specification says of a model: a budget of weak columns, learning block by block, folding, embeddings and output
/// head.
class named_decoder_quantizer {
public:
    /// The specification was checked against `model`.
    named_decoder_quantizer(decoder& model, block_sequence& blocks, spec const& s, calibration text,
                            executor_ref executor, progress report)
        : model_(model), blocks_(blocks), spec_(s), text_(std::move(text)), executor_(executor),
          progress_(std::move(report)) {}

    /// Folds the scales of inputs of all blocks, which are in memory, where that is asked for; layers where it is not
    /// possible keep maps of their own.
    void fold_maps() {
        if (!needs_all_blocks(spec_)) {
            return;
        }
        if (spec_.smooth) {
            fold_transform(model_, smooth_of(spec_), text_, executor_, progress_);
        } else {
            fold_transform(model_, shifts_of(spec_), text_, executor_, progress_);
        }
    }

    std::vector<layer_report> run() {
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
        }
        text_.prepare = [&, before = text_.prepare](block& b, matrix_view x, matrix_view floats, nn::token_rows rows) {
            if (before) {
                before(b, x, floats, rows);
            }
            plan_ = plan_weak_columns(b, spec_, bits_of(spec_));
            foldable_ = foldable_layers(b);
            if (learner) {
                (*learner)(b, x, floats, rows);
            }
        };
        auto reports = quantize_decoder(
            model_, blocks_,
            [&](matrix const& w, layer_inputs const& known, layer_place place) {
                named_quantizer const q = quantizer_at(place);
                bool const learned = learner && place.role != linear_role::head;
                return learned ? q.with_scales(learner->scales(place))(w, known, executor_) : q(w, known, executor_);
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
        if (text_.journal != nullptr) {
            learner.begin_at(text_.journal->done());
        }
        return learner;
    }

    /// The layers of a block that is not quantized yet whose inputs can be scaled by folding.
    static std::set<layer_place> foldable_layers(block const& b) {
        std::set<layer_place> can;
        for (site const at : all_sites) {
            for (index_t e = 0; e < (at == site::hidden ? std::ssize(b.mlps) : 1); ++e) {
                if (can_fold(b, at, e)) {
                    auto const readers = readers_of(b, at, e);
                    can.insert(readers.begin(), readers.end());
                }
            }
        }
        return can;
    }

    /// The quantizer of a layer of the block that is worked on.
    named_quantizer quantizer_at(layer_place place) const {
        spec here = with_plan(spec_, plan_, place);
        if (spec_.input.folded && foldable_.contains(place)) {
            here.smooth.reset();
            here.power_of_two = here.input.shifted = false;
        }
        return named_quantizer(std::move(here));
    }

    decoder& model_;
    block_sequence& blocks_;
    spec spec_;
    calibration text_;
    executor_ref executor_;
    progress progress_;
    weak_plan plan_;                 // of the block that is worked on
    std::set<layer_place> foldable_; // of that
};

DETENT_INLINE std::vector<layer_report> quantize_decoder(decoder& model, spec const& s, calibration text,
                                                         executor_ref executor, progress const& report) {
    check(s, model);
    blocks_in_memory blocks(model);
    named_decoder_quantizer all(model, blocks, s, std::move(text), executor, report);
    all.fold_maps();
    return all.run();
}

DETENT_INLINE std::vector<layer_report> quantize_decoder(decoder& model, block_sequence& blocks, spec const& s,
                                                         calibration text, executor_ref executor,
                                                         progress const& report) {
    outline_decoder(model.configuration, s); // whether it is possible
    if (needs_all_blocks(s)) {
        throw error("specification '" + s.text + "'",
                    "folds the scales of inputs into all blocks before one is quantized, which needs the whole model "
                    "in memory");
    }
    return named_decoder_quantizer(model, blocks, s, std::move(text), executor, report).run();
}

DETENT_INLINE bool needs_all_blocks(spec const& s) { return s.input.folded && !s.input.shifted; }

} // namespace detent::inline DETENT_ABI
