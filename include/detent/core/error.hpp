// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <stdexcept>
#include <string>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// Wrong data from outside: a file, a tensor, a specification. The message starts with the thing it is about.
class error : public std::runtime_error {
public:
    error(std::string subject, std::string const& problem)
        : std::runtime_error(subject + ": " + problem), subject_(std::move(subject)) {}

    /// The file, tensor, layer or field that is wrong.
    std::string const& subject() const noexcept { return subject_; }

private:
    std::string subject_;
};

/// Thrown when a progress callback asked to stop. Nothing has been written.
class cancelled : public std::runtime_error {
public:
    cancelled() : std::runtime_error("cancelled") {}
};

} // namespace detent::inline DETENT_ABI
