// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "detent/core/contract.hpp"
#include "detent/io/failure.hpp"
#include "detent/io/scratch_file.hpp"

namespace detent::inline DETENT_ABI::io {

DETENT_INLINE scratch_file::scratch_file(std::filesystem::path directory)
    : directory_(directory.empty() ? std::filesystem::path(".") : std::move(directory)) {
#if defined(__linux__)
    descriptor_ = ::open(directory_.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
#endif
    for (int attempt = 0; descriptor_ < 0; ++attempt) { // where there are no such files, one loses its name at once
        auto const name =
            directory_ / (".detent-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".scratch");
        descriptor_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (descriptor_ >= 0) {
            ::unlink(name.c_str());
        } else if (errno != EEXIST) {
            fail(directory_, "no temporary file can be created there");
        }
    }
}

DETENT_INLINE scratch_file::scratch_file(scratch_file&& other) noexcept
    : directory_(std::move(other.directory_)), descriptor_(std::exchange(other.descriptor_, -1)),
      size_(std::exchange(other.size_, 0)), view_(std::exchange(other.view_, {})) {}

DETENT_INLINE scratch_file& scratch_file::operator=(scratch_file&& other) noexcept {
    std::swap(directory_, other.directory_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(size_, other.size_);
    std::swap(view_, other.view_);
    return *this;
}

DETENT_INLINE scratch_file::~scratch_file() {
    unmap();
    if (descriptor_ >= 0) {
        ::close(descriptor_);
    }
}

DETENT_INLINE void scratch_file::unmap() const noexcept {
    if (!view_.empty()) {
        ::munmap(const_cast<std::uint8_t*>(view_.data()), view_.size());
        view_ = {};
    }
}

DETENT_INLINE void scratch_file::resize(std::uint64_t bytes) {
    unmap();
    if (::ftruncate(descriptor_, static_cast<::off_t>(bytes)) != 0) {
        fail(directory_, "a temporary file there cannot be made longer");
    }
    if (bytes > size_) {
        // A disk that is full says so here, not while mapped pages are written.
        int const problem =
            ::posix_fallocate(descriptor_, static_cast<::off_t>(size_), static_cast<::off_t>(bytes - size_));
        if (problem != 0 && problem != EINVAL && problem != EOPNOTSUPP) {
            fail(directory_, "there is no room for a temporary file", problem);
        }
    }
    size_ = bytes;
}

DETENT_INLINE void scratch_file::write(std::uint64_t offset, std::span<std::uint8_t const> bytes) {
    DETENT_EXPECTS(offset <= size_);
    if (offset + bytes.size() > size_) {
        unmap();
    }
    while (!bytes.empty()) {
        ::ssize_t const written = ::pwrite(descriptor_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30),
                                           static_cast<::off_t>(offset));
        if (written >= 0) {
            bytes = bytes.subspan(static_cast<std::size_t>(written));
            offset += static_cast<std::uint64_t>(written);
        } else if (errno != EINTR) {
            fail(directory_, "a temporary file there cannot be written");
        }
    }
    size_ = std::max(size_, offset);
}

DETENT_INLINE void scratch_file::read(std::uint64_t offset, std::span<std::uint8_t> bytes) const {
    DETENT_EXPECTS(offset + bytes.size() <= size_);
    while (!bytes.empty()) {
        ::ssize_t const got = ::pread(descriptor_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30),
                                      static_cast<::off_t>(offset));
        if (got > 0) {
            bytes = bytes.subspan(static_cast<std::size_t>(got));
            offset += static_cast<std::uint64_t>(got);
        } else if (got == 0 || errno != EINTR) {
            fail(directory_, "a temporary file there cannot be read", got == 0 ? EIO : errno);
        }
    }
}

DETENT_INLINE std::span<std::uint8_t const> scratch_file::view() const {
    if (view_.empty() && size_ > 0) {
        void* const data = ::mmap(nullptr, static_cast<std::size_t>(size_), PROT_READ, MAP_SHARED, descriptor_, 0);
        if (data == MAP_FAILED) {
            fail(directory_, "a temporary file there cannot be mapped into memory");
        }
        view_ = {static_cast<std::uint8_t const*>(data), static_cast<std::size_t>(size_)};
    }
    return view_;
}

DETENT_INLINE void scratch_file::release() const noexcept {
    if (!view_.empty()) {
        ::madvise(const_cast<std::uint8_t*>(view_.data()), view_.size(), MADV_DONTNEED);
    }
}

} // namespace detent::inline DETENT_ABI::io
