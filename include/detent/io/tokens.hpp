// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/mapped_file.hpp"

namespace detent::inline DETENT_ABI::io {

/// Reads token ids: little-endian 16-bit from `*.u16`, little-endian 32-bit from `*.u32`, and from any other file one
/// id per byte. Throws `error` naming the file when its size is not a whole number of ids or an id exceeds 2^31 - 1.
inline std::vector<std::int32_t> read_tokens(std::filesystem::path const& path) {
    mapped_file const file(path);
    auto const bytes = file.bytes();
    auto const extension = path.extension();
    std::size_t const width = extension == ".u16" ? 2 : extension == ".u32" ? 4 : 1;
    if (bytes.size() % width != 0) {
        throw error(path.string(), "holds " + std::to_string(bytes.size()) + " bytes, not a multiple of the " +
                                       std::to_string(width) + " bytes of a token id");
    }
    std::vector<std::int32_t> tokens(bytes.size() / width);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
        std::uint32_t token = 0;
        for (std::size_t b = 0; b < width; ++b) {
            token |= std::uint32_t{bytes[i * width + b]} << (8 * b);
        }
        if (token > static_cast<std::uint32_t>(std::numeric_limits<std::int32_t>::max())) {
            throw error(path.string(),
                        "token " + std::to_string(i) + " is " + std::to_string(token) + ", beyond 2147483647");
        }
        tokens[i] = static_cast<std::int32_t>(token);
    }
    return tokens;
}

} // namespace detent::inline DETENT_ABI::io
