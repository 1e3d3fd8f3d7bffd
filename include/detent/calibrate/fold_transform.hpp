// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "detent/calibrate/perplexity.hpp"
#include "detent/calibrate/quantize_decoder.hpp"
#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/fold.hpp"
#include "detent/transform/channel_scale.hpp"
#include "detent/transform/transform.hpp"

namespace detent::inline DETENT_ABI {

/// The factors of a map that only multiplies inputs. @throws error when it does anything else.
float_vector factors_of(input_map const& map, index_t features);

/// Folds what `transform` does to the inputs of linear layers into the norms and weights before them, at every site of
/// every block where that is possible (`fold_obstacle`), so that the model computes what it did and needs no maps
/// there. Layers that read the same input get one map, fitted to all their weights and to what the float model makes of
/// the text. @throws error when the text gives no window, or the map does more than multiply channels; `cancelled`.
template <Transform T>
void fold_transform(decoder& model, T const& transform, calibration const& text, executor_ref executor = {},
                    progress const& report = {}) {
    index_t const windows = text.window > 0 ? std::min(text.windows, std::ssize(text.tokens) / text.window) : 0;
    if (windows < 1) {
        throw error("calibration text", "gives no window of " + std::to_string(text.window) + " tokens");
    }
    matrix x = model.embed(text.tokens.first(static_cast<std::size_t>(windows * text.window)),
                           {.sequences = windows}); // (token, hidden)
    index_t const at_once = windows_at_once(text.window, model.configuration.intermediate);
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
        block& b = model.blocks[i];
        std::vector<layer_inputs> inputs; // of each site
        for (fold_site const site : fold_sites) {
            inputs.emplace_back(channels_of(b, site));
        }
        for (index_t w = 0; w < windows; w += at_once) {
            advance(report, "fold",
                    (static_cast<double>(i) + static_cast<double>(w) / static_cast<double>(windows)) /
                        static_cast<double>(model.blocks.size()));
            nn::token_rows const rows{.sequences = std::min(at_once, windows - w)};
            auto here = x.middleRows(w * text.window, rows.sequences * text.window);
            auto const add = [&](fold_site site, matrix_view read) {
                inputs[static_cast<std::size_t>(site)].add(read, executor);
            };
            matrix read = b.attention_input(here, executor);
            add(fold_site::attention_input, read);
            read = b.attention_context(read, rows, executor);
            add(fold_site::attention_context, read);
            b.add_attention(here, read, executor);
            read = b.mlp_input(here, executor);
            add(fold_site::mlp_input, read);
            read = b.mlp_hidden(read, executor);
            add(fold_site::mlp_hidden, read);
            b.add_mlp(here, read, executor);
        }
        std::array<std::optional<float_vector>, std::size(fold_sites)> factors; // fitted before any weight changes
        for (fold_site const site : fold_sites) {
            if (fold_obstacle(b, site)) {
                continue;
            }
            index_t rows = 0;
            matrix weights(0, channels_of(b, site)); // of all readers, one below the other
            for (linear_role const role : readers_of(b, site)) {
                auto const& w = std::get<matrix>(b.linear(role).weight);
                weights.conservativeResize(rows + w.rows(), Eigen::NoChange);
                weights.bottomRows(w.rows()) = w;
                rows += w.rows();
            }
            float_vector found =
                factors_of(transform.fit(weights, inputs[static_cast<std::size_t>(site)]), weights.cols());
            factors[static_cast<std::size_t>(site)] =
                site == fold_site::attention_context ? shared_by_heads(std::move(found), b.heads) : std::move(found);
        }
        for (fold_site const site : fold_sites) {
            if (auto const& found = factors[static_cast<std::size_t>(site)]) {
                fold(b, site, *found);
            }
        }
    }
}

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/fold_transform.ipp" // IWYU pragma: export
#endif
