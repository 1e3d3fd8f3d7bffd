// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <unistd.h>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::io {

/// A file that appears complete or not at all: bytes go to a temporary file in the same directory, which `commit` puts
/// in place of the target. Without `commit` the target is as it was. The temporary file has no name before that where
/// the system knows such files, so that nothing is left of it even when the program is killed; else the destructor
/// removes it. Every failure throws `error` naming the target.
class atomic_file {
public:
    /// Opens the temporary file. Refuses a target that exists and is not a regular file.
    explicit atomic_file(std::filesystem::path target);
    atomic_file(atomic_file&& other) noexcept;
    atomic_file& operator=(atomic_file&& other) noexcept;
    atomic_file(atomic_file const&) = delete;
    atomic_file& operator=(atomic_file const&) = delete;
    ~atomic_file() {
        if (descriptor_ >= 0) {
            ::close(descriptor_);
        }
        if (!temporary_.empty()) {
            ::unlink(temporary_.c_str());
        }
    }

    /// The path the file will have.
    std::filesystem::path const& path() const { return target_; }

    /// Appends bytes.
    void write(std::span<std::uint8_t const> bytes);

    /// Appends text.
    void write(std::string_view text);

    /// Ends writing: everything is on disk or an error is thrown. The target is still as it was.
    void close();

    /// Closes the file and puts it in place of the target.
    void commit();

private:
    bool give_name();

    std::filesystem::path target_;
    std::filesystem::path temporary_; // empty: nothing to remove
    int descriptor_ = -1;
    bool closed_ = false; // a file without a name stays open
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/atomic_file.ipp" // IWYU pragma: export
#endif
