// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <chrono>
#include <iostream>
#include <string>
#include <vector>

#include "detent/core/index.hpp"
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

/// Cuts an evaluation text to so many windows, 0 for all that it has, and says so where it has fewer.
inline void take_windows(std::vector<detent::nn::token_id>& tokens, detent::index_t window, detent::index_t wanted) {
    detent::index_t const found = std::ssize(tokens) / window;
    if (wanted > 0 && found > 0 && found < wanted) {
        std::cerr << "note: the evaluation text has " << found << " windows of " << window << " tokens, not " << wanted
                  << "\n";
    }
    if (found == 0) {
        throw detent::error("evaluation text", "has " + std::to_string(tokens.size()) +
                                                   " tokens, which is no window of " + std::to_string(window));
    }
    if (wanted > 0 && wanted < found) {
        tokens.resize(static_cast<std::size_t>(wanted * window));
    }
}
