// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#include "detent/core/needs_exceptions.hpp"
#include "detent/io/failure.hpp"

namespace detent::inline DETENT_ABI::io {

/// What tells versions of a file apart: its size, and when it was changed.
struct file_stamp {
    std::uint64_t size = 0;
    std::int64_t time = 0; ///< in nanoseconds

    friend bool operator==(file_stamp const&, file_stamp const&) = default;
};

/// That of a file. @throws error naming it when it cannot be examined.
file_stamp stamp_of(std::filesystem::path const& path);

/// @throws error naming the file unless its stamp is this one.
void expect_stamp(std::filesystem::path const& path, file_stamp const& stamp);

/// A whole file, read-only, in memory: pages are read when touched (POSIX `mmap`). Replacing the file by rename is safe
/// while it is mapped; shrinking it in place is not, the system then stops the program on the next access.
class mapped_file {
public:
    /// Throws `error` naming the file when it is missing, unreadable or not a regular file. An empty file is fine.
    explicit mapped_file(std::filesystem::path path);
    mapped_file(mapped_file&& other) noexcept;
    mapped_file& operator=(mapped_file&& other) noexcept;
    mapped_file(mapped_file const&) = delete;
    mapped_file& operator=(mapped_file const&) = delete;
    ~mapped_file() {
        if (!bytes_.empty()) {
            ::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
        }
    }

    /// The path given to the constructor.
    std::filesystem::path const& path() const { return path_; }

    /// The contents; valid as long as this object, also after moving it.
    std::span<std::uint8_t const> bytes() const { return bytes_; }

    /// What the file was when it was opened.
    file_stamp const& stamp() const { return stamp_; }

    /// Whether these are some of its bytes.
    bool owns(std::span<std::uint8_t const> part) const noexcept;

    /// Gives back the memory of pages that were touched; they are read again when they are wanted. `part` are some of
    /// the bytes; others, which are not of this file, are left alone.
    void release(std::span<std::uint8_t const> part) const noexcept;

private:
    struct closer {
        int descriptor;
        ~closer() { ::close(descriptor); }
    };
    std::filesystem::path path_;
    std::span<std::uint8_t const> bytes_;
    file_stamp stamp_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/io/mapped_file.ipp" // IWYU pragma: export
#endif
