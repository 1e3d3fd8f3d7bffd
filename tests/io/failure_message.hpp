// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <string>

#include "detent/core/error.hpp"

/// The message of the detent::error that `f` throws; empty if it throws none.
template <typename F> std::string failure_message(F&& f) {
    try {
        f();
    } catch (detent::error const& e) {
        return e.what();
    }
    return {};
}

inline bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }
