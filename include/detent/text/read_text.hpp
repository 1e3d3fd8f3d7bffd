// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::text {

/// A text that stands alone, and where it is from: a file, or a line of one such as "a.jsonl, line 3".
struct document {
    std::string name;
    std::string text;
};

/// Reads texts: of `*.jsonl` the field `text` of the object on each line, of any other file all of it. Lines without
/// anything but white space are passed over. Throws `error` naming the file, and the line that is no object with a
/// text.
std::vector<document> read_text_files(std::span<std::filesystem::path const> files);

} // namespace detent::inline DETENT_ABI::text

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/text/read_text.ipp" // IWYU pragma: export
#endif
