// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "detent/io/atomic_file.hpp"
#include "detent/io/mapped_file.hpp"

namespace detent::inline DETENT_ABI::io {

/// The contents of a file, byte for byte. Throws `error` naming the file.
inline std::string read_text(std::filesystem::path const& path) {
    mapped_file const file(path);
    return {file.bytes().begin(), file.bytes().end()};
}

/// Writes or replaces a file; on failure throws `error` naming the file and leaves it as it was.
inline void write_text(std::filesystem::path const& path, std::string_view text) {
    atomic_file file(path);
    file.write(text);
    file.commit();
}

} // namespace detent::inline DETENT_ABI::io
