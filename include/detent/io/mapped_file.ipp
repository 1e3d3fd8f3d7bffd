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
#include "detent/io/mapped_file.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE mapped_file::mapped_file(std::filesystem::path path) : path_(std::move(path)) {
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

DETENT_INLINE mapped_file::mapped_file(mapped_file&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

DETENT_INLINE mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(bytes_, other.bytes_);
    return *this;
}

} // namespace detent::inline DETENT_ABI::io
