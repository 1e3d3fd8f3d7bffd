// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "detent/core/abi.hpp"
#include "detent/core/function_ref.hpp"

namespace detent::inline DETENT_ABI::io {

/// Text from a file made fit for a one-line error message: shortened, control characters replaced by '?'.
std::string printable(std::string_view text);

/// What JSON may ask of memory, judged before any is used: a value of two bytes of text takes some hundred of memory.
/// The largest files in use, tokenizers of some 500 000 tokens, have a third of so many values.
struct json_limits {
    std::size_t bytes = std::size_t{1} << 28;
    std::size_t values = std::size_t{1} << 23;
    std::size_t values_of_member = std::size_t{1} << 20; ///< of `parse_members`, which has no limit for all
    std::size_t levels = 64;                             ///< of nesting
};

/// Parses JSON from an untrusted source, in linear time. Stricter than the standard where readers disagree: a repeated
/// key and what is beyond `json_limits` are errors. Throws `error(subject, ...)`.
nlohmann::json parse_json(std::string_view text, std::string const& subject);

/// Parses JSON that is an object, as `parse_json` does, and calls `f(key, value)` for one member after the other, in
/// the order of the text: memory is that of the largest of them. A key that is repeated at the top is left to `f`; what
/// is wrong behind a member is an error after it. Throws what `f` does and `error(subject, ...)`, also where it is no
/// object.
void parse_members(std::string_view text, std::string const& subject,
                   function_ref<void(std::string const&, nlohmann::json const&)> f);

/// Reads a JSON file with the rules of `parse_json`. Throws `error` naming the file.
nlohmann::json read_json(std::filesystem::path const& path);

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/json.ipp" // IWYU pragma: export
#endif
