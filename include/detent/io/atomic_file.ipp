// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "detent/core/contract.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/failure.hpp"

namespace detent::inline DETENT_ABI::io {

/// Removes the temporary files that processes which ended suddenly have left in a directory: those that nobody has
/// locked. A file of the last minute is spared, since its owner may be about to lock it.
DETENT_INLINE void remove_stale_files(std::filesystem::path const& directory) {
    std::error_code ignored;
    auto const now = std::filesystem::file_time_type::clock::now();
    for (auto const& entry : std::filesystem::directory_iterator(directory.empty() ? "." : directory, ignored)) {
        std::string const name = entry.path().filename().string();
        if (!name.starts_with(".detent-") || !name.ends_with(".tmp") || !entry.is_regular_file(ignored) ||
            now - entry.last_write_time(ignored) < std::chrono::minutes(1)) {
            continue;
        }
        int const descriptor = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
        if (descriptor >= 0) {
            if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
                ::unlink(entry.path().c_str());
            }
            ::close(descriptor);
        }
    }
}

DETENT_INLINE atomic_file::atomic_file(std::filesystem::path target) : target_(std::move(target)) {
    std::error_code ignored; // a target that cannot be examined cannot be created either
    auto const status = std::filesystem::status(target_, ignored);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
        throw error(target_.string(), "exists and is not a regular file");
    }
    remove_stale_files(target_.parent_path());
    // Not mkstemp: it makes files that only their owner can read.
    for (int attempt = 0; descriptor_ < 0; ++attempt) {
        temporary_ =
            target_.parent_path() / (".detent-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
        descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor_ < 0 && errno != EEXIST) {
            fail(target_, "cannot be created");
        }
    }
    ::flock(descriptor_, LOCK_EX | LOCK_NB); // some file systems cannot; nobody removes the file there
}

DETENT_INLINE atomic_file::atomic_file(atomic_file&& other) noexcept
    : target_(std::move(other.target_)), temporary_(std::exchange(other.temporary_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)), closed_(other.closed_) {}

DETENT_INLINE atomic_file& atomic_file::operator=(atomic_file&& other) noexcept {
    std::swap(target_, other.target_);
    std::swap(temporary_, other.temporary_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(closed_, other.closed_);
    return *this;
}

DETENT_INLINE void atomic_file::write(std::span<std::uint8_t const> bytes) {
    DETENT_EXPECTS(descriptor_ >= 0 && !closed_);
    while (!bytes.empty()) {
        // Systems limit a single write to about 2 GB.
        ::ssize_t const written = ::write(descriptor_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
        if (written >= 0) {
            bytes = bytes.subspan(static_cast<std::size_t>(written));
        } else if (errno != EINTR) {
            fail(target_, "cannot be written");
        }
    }
}

DETENT_INLINE void atomic_file::write(std::string_view text) {
    write(std::span(reinterpret_cast<std::uint8_t const*>(text.data()), text.size()));
}

DETENT_INLINE void atomic_file::close() {
    if (closed_) {
        return;
    }
    // Some file systems report a full disk only here. EINVAL: this one cannot synchronize, which is no failure.
    if (::fsync(descriptor_) != 0 && errno != EINVAL) {
        fail(target_, "cannot be written");
    }
    closed_ = true;
}

DETENT_INLINE void atomic_file::commit() {
    DETENT_EXPECTS(!temporary_.empty());
    close();
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
        fail(target_, "cannot be replaced");
    }
    temporary_.clear();
    if (::close(std::exchange(descriptor_, -1)) != 0) {
        fail(target_, "cannot be written");
    }
}

} // namespace detent::inline DETENT_ABI::io
