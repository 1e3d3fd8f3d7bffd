// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <variant>
#include <vector>

#include "detent/calibrate/fold_transform.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/error.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/sites.hpp"
#include "detent/transform/transform.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE float_vector factors_of(input_map const& map, index_t features) {
    float_vector factors = float_vector::Ones(features);
    for (auto const& step : map.steps()) {
        auto const* const d = std::get_if<diagonal>(&step);
        if (d == nullptr) {
            throw error("transform", "cannot be folded: it does more than multiply every channel");
        }
        factors.array() *= Eigen::Map<float_vector const>(d->factors.data(), features).array();
    }
    return factors;
}

DETENT_INLINE matrix const& activation_on(block_tape<float> const& tape, site at, index_t network) {
    switch (at) {
    case site::attention_input:
        return tape.attention_input.raw;
    case site::context:
        return tape.context.raw;
    case site::mlp_input:
        return tape.mlp_input.raw;
    default:
        return tape.mlps[static_cast<std::size_t>(network)].hidden.raw;
    }
}

DETENT_INLINE std::vector<foldable_site> run_and_collect(block const& b, matrix& x, nn::token_rows rows,
                                                         index_t at_once, bool all_experts, executor_ref executor,
                                                         std::function<void(double)> const& advance_to) {
    std::vector<foldable_site> sites;
    for (site const at : all_sites) {
        for (index_t e = 0; e < (at == site::hidden ? std::ssize(b.mlps) : 1); ++e) {
            if (can_fold(b, at, e)) {
                sites.push_back({at, e, layer_inputs(channels_of(b, at, e))});
            }
        }
    }
    index_t const length = rows.length(x.rows());
    for (index_t s = 0; s < rows.sequences; s += at_once) {
        advance_to(static_cast<double>(s) / static_cast<double>(rows.sequences));
        index_t const count = std::min(at_once, rows.sequences - s);
        auto here = x.middleRows(s * length, count * length);
        block_tape<float> tape;
        here = forward<linear_layer, float>(b, here, {.sequences = count}, tape, executor);
        for (std::size_t e = 0; all_experts && e < b.mlps.size(); ++e) {
            send_all_tokens(b, e, tape);
            run_hidden(b, e, tape, executor);
        }
        for (foldable_site& f : sites) {
            f.inputs.add(activation_on(tape, f.at, f.network), executor);
        }
    }
    return sites;
}

DETENT_INLINE matrix stacked_readers(block const& b, site at, index_t network) {
    matrix stacked(0, channels_of(b, at, network));
    for (matrix const* const w : weights_reading(b, at, network)) {
        stacked.conservativeResize(stacked.rows() + w->rows(), Eigen::NoChange);
        stacked.bottomRows(w->rows()) = *w;
    }
    return stacked;
}

} // namespace detent::inline DETENT_ABI
