// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "detent/io/failure.hpp"

namespace detent::inline DETENT_ABI::io {

/// A whole file, read-only, in memory: pages are read when touched (POSIX `mmap`). Replacing the file by rename is safe
/// while it is mapped; shrinking it in place is not, the system then stops the program on the next access.
class mapped_file {
public:
    /// Throws `error` naming the file when it is missing, unreadable or not a regular file. An empty file is fine.
    explicit mapped_file(std::filesystem::path path) : path_(std::move(path)) {
        // O_NONBLOCK: opening a pipe must fail below, not wait for a writer.
        int const descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (descriptor < 0) {
            fail(path_, "cannot be opened");
        }
        closer const close_at_exit{descriptor};
        struct ::stat status {};
        if (::fstat(descriptor, &status) != 0) {
            fail(path_, "cannot be examined");
        }
        if (!S_ISREG(status.st_mode)) {
            throw error(path_.string(), S_ISDIR(status.st_mode) ? "is a directory" : "is not a regular file");
        }
        auto const size = static_cast<std::size_t>(status.st_size);
        if (size == 0) {
            return; // mmap refuses empty mappings
        }
        void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED) {
            fail(path_, "cannot be mapped into memory");
        }
        bytes_ = {static_cast<std::uint8_t const*>(data), size};
    }
    mapped_file(mapped_file&& other) noexcept
        : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(path_, other.path_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
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

private:
    struct closer {
        int descriptor;
        ~closer() { ::close(descriptor); }
    };
    std::filesystem::path path_;
    std::span<std::uint8_t const> bytes_;
};

} // namespace detent::inline DETENT_ABI::io
