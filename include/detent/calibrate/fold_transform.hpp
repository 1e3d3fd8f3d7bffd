// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/core/progress.hpp"
#include "detent/evidence/layer_inputs.hpp"
#include "detent/model/block_flow.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/model/sites.hpp"
#include "detent/transform/channel_scale.hpp"
#include "detent/transform/transform.hpp"

namespace detent::inline DETENT_ABI {

/// The factors of a map that only multiplies inputs. @throws error when it does anything else.
float_vector factors_of(input_map const& map, index_t features);

/// An activation into which scales can be folded: a site, of `hidden` in one feed-forward network.
struct foldable_site {
    site at;
    index_t network;
    layer_inputs inputs; ///< what is known about it
};

/// Runs hidden states `x` (token, hidden) of as many sequences as `rows` says through a block, a few at a time, and
/// answers what its layers read where scales can be folded. An expert is shown the tokens that are sent to it, or all
/// if `all_experts`. `x` becomes the hidden state after the block. `advance_to` is told what part is done.
std::vector<foldable_site> run_and_collect(block const& b, matrix& x, nn::token_rows rows, index_t at_once,
                                           bool all_experts, executor_ref executor,
                                           std::function<void(double)> const& advance_to);

/// All weights that read a site and are quantized, one below the other, (out of all, in).
matrix stacked_readers(block const& b, site at, index_t network);

/// Folds what `transform` does to the inputs of linear layers into the norms and weights before them, at every site of
/// every block where that is possible (`fold_obstacle`), so that the model computes what it did and needs no maps
/// there. Layers that read the same input get one map, fitted to all their weights and to what the float model makes of
/// the text; an expert that no token was sent to is left as it is inside. @throws error when the text gives no window,
/// or the map does more than multiply channels; `cancelled`.
template <Transform T>
void fold_transform(decoder& model, T const& transform, calibration const& text, executor_ref executor = {},
                    progress const& report = {}) {
    index_t const windows = text.window > 0 ? std::min(text.windows, std::ssize(text.tokens) / text.window) : 0;
    if (windows < 1) {
        throw error("calibration text", "gives no window of " + std::to_string(text.window) + " tokens");
    }
    matrix x = model.embed(text.tokens.first(static_cast<std::size_t>(windows * text.window)),
                           {.sequences = windows}); // (token, hidden)
    index_t const at_once = windows_at_once(text.window, widest_activation(model.configuration));
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        block& b = model.blocks[i];
        auto const sites =
            run_and_collect(b, x, {.sequences = windows}, at_once, text.all_experts, executor, [&](double in_block) {
                advance(report, "fold", (static_cast<double>(i) + in_block) / static_cast<double>(model.blocks.size()));
            });
        std::vector<float_vector> factors; // fitted before any weight changes; empty where nothing is known
        for (auto const& [at, network, inputs] : sites) {
            factors.emplace_back();
            if (inputs.hessian().tokens() > 0) {
                matrix const weights = stacked_readers(b, at, network);
                factors.back() = factors_of(transform.fit(weights, inputs), weights.cols());
            }
            if (at == site::context) {
                factors.back() = shared_by_heads(std::move(factors.back()), b.heads);
            }
        }
        for (std::size_t k = 0; k < sites.size(); ++k) {
            if (factors[k].size() > 0) {
                fold(b, sites[k].at, factors[k], sites[k].network);
            }
        }
    }
}

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/fold_transform.ipp" // IWYU pragma: export
#endif
