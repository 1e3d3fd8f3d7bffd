// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <chrono>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "detent/calibrate/perplexity.hpp"
#include "detent/core/index.hpp"
#include "detent/core/progress.hpp"
#include "detent/model/decoder.hpp"

using clock_type = std::chrono::steady_clock;

inline double seconds_since(clock_type::time_point start) {
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// Says what is odd about the checkpoint of a model.
inline void print_warnings(detent::decoder const& model) {
    for (auto const& warning : model.warnings) {
        std::cerr << "warning: " << warning << '\n';
    }
}

/// How many windows the text called `name` has. Says so where it has fewer than `wanted`, 0 for any number. Throws
/// where it has none.
inline detent::index_t count_windows(std::string const& name, std::span<detent::nn::token_id const> tokens,
                                     detent::index_t window, detent::index_t wanted) {
    detent::index_t const found = std::ssize(tokens) / window;
    if (found == 0) {
        throw detent::error(name, "has " + std::to_string(tokens.size()) + " tokens, which is no window of " +
                                      std::to_string(window));
    }
    if (found < wanted) {
        std::cerr << "note: the " << name << " has " << found << " windows of " << window << " tokens, not " << wanted
                  << "\n";
    }
    return found;
}

/// Cuts an evaluation text to so many windows, 0 for all that it has.
inline void take_windows(std::vector<detent::nn::token_id>& tokens, detent::index_t window, detent::index_t wanted) {
    auto const found = count_windows("evaluation text", tokens, window, wanted);
    if (wanted > 0 && wanted < found) {
        tokens.resize(static_cast<std::size_t>(wanted * window));
    }
}

/// The perplexity of a model, through a cache where there is one.
inline double measure_perplexity(detent::decoder const& model, std::span<detent::nn::token_id const> tokens,
                                 detent::index_t window, std::optional<detent::kv_format> const& cache,
                                 detent::executor_ref executor, detent::progress const& report) {
    return cache ? detent::cached_perplexity(model, tokens, window, *cache, executor, report)
                 : detent::perplexity(model, tokens, window, executor, report);
}
