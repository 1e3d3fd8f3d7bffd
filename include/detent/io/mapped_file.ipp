// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "detent/io/failure.hpp"
#include "detent/io/mapped_file.hpp"

namespace detent::inline DETENT_ABI::io {

/// That of a file whose status is known.
DETENT_INLINE file_stamp stamp_of(struct ::stat const& status) {
#if defined(__APPLE__)
    auto const& time = status.st_mtimespec;
#else
    auto const& time = status.st_mtim;
#endif
    return {static_cast<std::uint64_t>(status.st_size),
            static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::int64_t>(time.tv_nsec)};
}

DETENT_INLINE file_stamp stamp_of(std::filesystem::path const& path) {
    struct ::stat status {};
    if (::stat(path.c_str(), &status) != 0) {
        fail(path, "cannot be examined");
    }
    return stamp_of(status);
}

DETENT_INLINE void expect_stamp(std::filesystem::path const& path, file_stamp const& stamp) {
    file_stamp const now = stamp_of(path);
    if (now.size != stamp.size) {
        throw error(path.string(), "has changed since it was opened: it had " + std::to_string(stamp.size) +
                                       " bytes and has " + std::to_string(now.size));
    }
    if (now != stamp) {
        throw error(path.string(), "has changed since it was opened: it was written again");
    }
}

DETENT_INLINE bool mapped_file::owns(std::span<std::uint8_t const> part) const noexcept {
    auto const *const begin = bytes_.data(), *const end = begin + bytes_.size();
    return !part.empty() && !std::less<>{}(part.data(), begin) && !std::less<>{}(end, part.data() + part.size());
}

DETENT_INLINE void mapped_file::release(std::span<std::uint8_t const> part) const noexcept {
    if (!owns(part)) {
        return;
    }
    auto const* const begin = bytes_.data();
    // Whole pages, of which those at the ends may hold bytes of others: all are of this file.
    auto const page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    auto const first = static_cast<std::size_t>(part.data() - begin) / page * page;
    auto const last = static_cast<std::size_t>(part.data() + part.size() - begin);
    ::madvise(const_cast<std::uint8_t*>(begin + first), last - first, MADV_DONTNEED);
}

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
    stamp_ = stamp_of(status);
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
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})), stamp_(other.stamp_) {}

DETENT_INLINE mapped_file& mapped_file::operator=(mapped_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(bytes_, other.bytes_);
    std::swap(stamp_, other.stamp_);
    return *this;
}

} // namespace detent::inline DETENT_ABI::io
