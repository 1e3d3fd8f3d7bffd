// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cerrno>
#include <filesystem>
#include <string>
#include <system_error>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"

namespace detent::inline DETENT_ABI::io {

/// Throws `error` about the file `path`: what was attempted and the operating system's reason for refusing it.
[[noreturn]] inline void fail(std::filesystem::path const& path, char const* problem, int code = errno) {
    throw error(path.string(), problem + (": " + std::generic_category().message(code)));
}

} // namespace detent::inline DETENT_ABI::io
