// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::io {

/// Text from a file made fit for a one-line error message: shortened, control characters replaced by '?'.
std::string printable(std::string_view text);

/// Parses JSON from an untrusted source. Stricter than the standard where readers disagree: a repeated key and nesting
/// beyond 64 levels are errors. Throws `error(subject, ...)`.
nlohmann::json parse_json(std::string_view text, std::string const& subject);

/// Reads a JSON file with the rules of `parse_json`. Throws `error` naming the file.
nlohmann::json read_json(std::filesystem::path const& path);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/json.ipp" // IWYU pragma: export
#endif
