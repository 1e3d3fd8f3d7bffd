// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "detent/calibrate/perplexity.hpp"
#include "detent/core/error.hpp"
#include "detent/core/progress.hpp"
#include "detent/model/block_sequence.hpp"
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

/// The perplexity of a model, of whose blocks, so many, `with_block(i, f)` calls `f(block)`; `part` windows are run at
/// a time through all of it, and of these as many at once as memory for activations allows.
template <class WithBlock>
double perplexity_of(decoder const& model, index_t blocks, WithBlock const& with_block,
                     std::span<nn::token_id const> tokens, index_t window, index_t part, executor_ref executor,
                     progress const& report) {
    index_t const windows = whole_windows(tokens, window);
    auto const& c = model.configuration;
    index_t const batch = windows_at_once(window, std::max(c.vocabulary, widest_activation(c)));
    part = std::max(batch, part / batch * batch);
    double loss = 0;
    for (index_t first = 0; first < windows; first += part) {
        index_t const end = std::min(first + part, windows);
        std::vector<matrix> x; // (token, hidden), of each batch
        auto const for_batches = [&](auto const& f) {
            for (index_t w = first; w < end; w += batch) {
                index_t const count = std::min(batch, end - w);
                f(static_cast<std::size_t>((w - first) / batch), count,
                  tokens.subspan(static_cast<std::size_t>(w * window), static_cast<std::size_t>(count * window)));
            }
        };
        for_batches([&](std::size_t, index_t count, std::span<nn::token_id const> ids) {
            x.push_back(model.embed(ids, {.sequences = count}, executor));
        });
        auto const tell = [&](index_t block, std::size_t k) { // that batch k is to go through a block
            double const of_block = static_cast<double>(k) / static_cast<double>(x.size());
            double const of_part = (static_cast<double>(block) + of_block) / static_cast<double>(blocks + 1);
            advance(report, "perplexity",
                    (static_cast<double>(first) + of_part * static_cast<double>(end - first)) /
                        static_cast<double>(windows));
        };
        for (index_t i = 0; i < blocks; ++i) {
            with_block(i, [&](block const& b) {
                for_batches([&](std::size_t k, index_t count, std::span<nn::token_id const>) {
                    tell(i, k);
                    x[k] = forward(b, x[k], {.sequences = count}, executor);
                });
            });
        }
        for_batches([&](std::size_t k, index_t count, std::span<nn::token_id const> ids) {
            tell(blocks, k);
            loss += nn::next_token_loss(model.logits(x[k], executor), ids, count, executor);
        });
    }
    advance(report, "perplexity", 1);
    return std::exp(loss / static_cast<double>(windows * (window - 1)));
}

DETENT_INLINE double perplexity(decoder const& model, std::span<nn::token_id const> tokens, index_t window,
                                executor_ref executor, progress const& report) {
    auto const with_block = [&](index_t i, auto const& f) { f(model.blocks[static_cast<std::size_t>(i)]); };
    return perplexity_of(model, std::ssize(model.blocks), with_block, tokens, window, 1, executor, report);
}

DETENT_INLINE double perplexity(decoder const& model, block_sequence& blocks, std::span<nn::token_id const> tokens,
                                index_t window, std::uint64_t bytes, executor_ref executor, progress const& report) {
    auto const with_block = [&](index_t i, auto const& f) {
        f(blocks.open(i));
        blocks.close(i);
    };
    auto const a_window = static_cast<std::uint64_t>(window * model.configuration.hidden) * sizeof(float);
    auto const part =
        static_cast<index_t>(std::min<std::uint64_t>(bytes / std::max<std::uint64_t>(1, a_window), 1U << 30));
    return perplexity_of(model, blocks.size(), with_block, tokens, window, part, executor, report);
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
