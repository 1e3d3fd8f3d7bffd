// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstdint>
#include <variant>

#include "detent/calibrate/memory_plan.hpp"
#include "detent/calibrate/perplexity.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/model_tensors.hpp"
#include "detent/quantizer/catalogue.hpp"

namespace detent::inline DETENT_ABI {

/// The tokens that a calibration shows; all that it asks for where there is no text yet.
DETENT_INLINE std::uint64_t planned_tokens(calibration const& text) {
    index_t const found = text.window > 0 ? std::ssize(text.tokens) / text.window : 0;
    return static_cast<std::uint64_t>((text.tokens.empty() ? text.windows : std::min(text.windows, found)) *
                                      text.window);
}

DETENT_INLINE memory_plan plan_memory(decoder const& outline, spec const& s, calibration const& text) {
    auto const size = [](extents shape) { return static_cast<std::uint64_t>(shape.rows * shape.cols); };
    evidence_needs const needs = named_quantizer(s).needs();
    memory_plan plan{.program = 64'000'000};
    model_tensors const ends = tensors_of_ends(outline);
    for (auto const& layer : ends.layers) {
        plan.ends += 4 * size(layer.of->shape());
    }
    for (auto const& [name, tensor] : ends.floats) {
        plan.ends += 4 * tensor.numbers.size();
    }
    bool const floats = needs.float_stream || needs.float_inputs || text.float_stream || text.float_inputs ||
                        s.learning || !text.true_sequential;
    std::uint64_t const copies = 1 + (floats ? 1 : 0) + (s.learning ? 3 : 0);
    std::uint64_t const tokens = planned_tokens(text);
    for (block const& b : outline.blocks) {
        std::uint64_t weights = 0, packed = 0;
        for (layer_place const place : b.places()) {
            linear_layer const& layer = b.linear(place);
            extents const shape = layer.shape();
            weights += size(shape);
            auto const* codes = std::get_if<packed_matrix>(&layer.weight);
            if (codes == nullptr) {
                continue;
            }
            packed += static_cast<std::uint64_t>(static_cast<double>(size(shape)) * codes->bits_per_weight() / 8);
            std::uint64_t const square = size({shape.cols, shape.cols});
            std::uint64_t const kept = needs.all_inputs ? 4 * tokens * static_cast<std::uint64_t>(shape.cols) : 0;
            plan.solver = std::max(plan.solver, 8 * (2 + (floats ? 1 : 0)) * square + 24 * size(shape) + kept);
        }
        plan.block = std::max(plan.block, 4 * copies * weights + packed);
    }
    auto const& c = outline.configuration;
    index_t const widest = widest_activation(c);
    auto const at_once = static_cast<std::uint64_t>(windows_at_once(text.window, widest) * text.window);
    plan.batch = 4 * std::min(at_once, tokens) * static_cast<std::uint64_t>(4 * widest + 4 * c.hidden);
    return plan;
}

DETENT_INLINE std::uint64_t activation_bytes(decoder const& outline, spec const& s, calibration const& text) {
    auto const& c = outline.configuration;
    evidence_needs const needs = named_quantizer(s).needs();
    index_t const streams = needs.float_stream || text.float_stream || s.learning ? 2 : 1;
    index_t const context = c.heads.heads * c.heads.head_dim;
    return planned_tokens(text) *
           static_cast<std::uint64_t>(streams * (c.hidden + context + (c.parallel ? c.hidden : 0))) * sizeof(float);
}

} // namespace detent::inline DETENT_ABI
