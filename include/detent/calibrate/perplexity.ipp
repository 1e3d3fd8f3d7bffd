// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "detent/calibrate/perplexity.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/model/decoder.hpp"
#include "detent/model/kv_cache.hpp"
#include "detent/nn/softmax.hpp"

namespace detent::inline DETENT_ABI {

DETENT_INLINE index_t widest_activation(model_configuration const& c) {
    index_t widest = std::max({c.hidden, c.heads.heads * c.heads.head_dim, c.intermediate});
    if (c.experts) {
        auto const& e = *c.experts;
        widest = std::max(widest, e.routing.experts_per_token * e.intermediate + e.shared_intermediate);
    }
    return widest;
}

DETENT_INLINE index_t windows_at_once(index_t window, index_t features) {
    index_t const tokens = std::min<index_t>(8192, (index_t{1} << 24) / features);
    return std::max<index_t>(1, tokens / window);
}

/// Whole windows in a text of so many tokens. @throws error when there is none.
DETENT_INLINE index_t whole_windows(std::span<nn::token_id const> tokens, index_t window) {
    index_t const windows = window > 1 ? std::ssize(tokens) / window : 0;
    if (windows == 0) {
        throw error("evaluation text", "has " + std::to_string(tokens.size()) + " tokens, which is no window of " +
                                           std::to_string(window));
    }
    return windows;
}

DETENT_INLINE double perplexity(decoder const& model, std::span<nn::token_id const> tokens, index_t window,
                                executor_ref executor, progress const& report) {
    index_t const windows = whole_windows(tokens, window);
    auto const& c = model.configuration;
    index_t const batch = windows_at_once(window, std::max(c.vocabulary, widest_activation(c)));
    double loss = 0;
    for (index_t first = 0; first < windows; first += batch) {
        advance(report, "perplexity", static_cast<double>(first) / static_cast<double>(windows));
        index_t const count = std::min(batch, windows - first);
        auto const ids =
            tokens.subspan(static_cast<std::size_t>(first * window), static_cast<std::size_t>(count * window));
        loss += nn::next_token_loss(model.forward(ids, count, executor), ids, count, executor);
    }
    advance(report, "perplexity", 1);
    return std::exp(loss / static_cast<double>(windows * (window - 1)));
}

DETENT_INLINE double cached_perplexity(decoder const& model, std::span<nn::token_id const> tokens, index_t window,
                                       kv_format const& format, executor_ref executor, progress const& report) {
    index_t const windows = whole_windows(tokens, window);
    kv_cache cache(model.configuration, window, format);
    double loss = 0;
    for (index_t i = 0; i < windows; ++i) {
        advance(report, "perplexity", static_cast<double>(i) / static_cast<double>(windows));
        cache.truncate(0);
        auto const ids = tokens.subspan(static_cast<std::size_t>(i * window), static_cast<std::size_t>(window));
        matrix const x = model.hidden(ids, cache, executor); // (token, hidden)
        loss += nn::next_token_loss(model.logits(x, executor), ids, 1, executor);
    }
    advance(report, "perplexity", 1);
    return std::exp(loss / static_cast<double>(windows * (window - 1)));
}

} // namespace detent::inline DETENT_ABI
