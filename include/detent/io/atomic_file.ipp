// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <cerrno>
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
#include <unistd.h>

#include "detent/core/contract.hpp"
#include "detent/io/atomic_file.hpp"
#include "detent/io/failure.hpp"

namespace detent::inline DETENT_ABI::io {

/// Opens a file without a name in `directory`; -1 where there is no such thing.
inline int open_unnamed(std::filesystem::path const& directory) {
#if defined(__linux__)
    if (::access("/proc/self/fd", X_OK) == 0) { // through which it gets its name
        return ::open(directory.empty() ? "." : directory.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
    }
#endif
    static_cast<void>(directory);
    return -1;
}

/// The name that a temporary file beside `target` gets in this attempt.
inline std::filesystem::path temporary_name(std::filesystem::path const& target, int attempt) {
    return target.parent_path() / (".detent-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
}

DETENT_INLINE atomic_file::atomic_file(std::filesystem::path target) : target_(std::move(target)) {
    std::error_code ignored; // a target that cannot be examined cannot be created either
    auto const status = std::filesystem::status(target_, ignored);
    if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
        throw error(target_.string(), "exists and is not a regular file");
    }
    descriptor_ = open_unnamed(target_.parent_path());
    // Not mkstemp: it makes files that only their owner can read.
    for (int attempt = 0; descriptor_ < 0; ++attempt) {
        temporary_ = temporary_name(target_, attempt);
        descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor_ < 0 && errno != EEXIST) {
            fail(target_, "cannot be created");
        }
    }
}

DETENT_INLINE atomic_file::atomic_file(atomic_file&& other) noexcept
    : target_(std::move(other.target_)), temporary_(std::exchange(other.temporary_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)), closed_(std::exchange(other.closed_, true)) {}

DETENT_INLINE atomic_file& atomic_file::operator=(atomic_file&& other) noexcept {
    std::swap(target_, other.target_);
    std::swap(temporary_, other.temporary_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(closed_, other.closed_);
    return *this;
}

DETENT_INLINE void atomic_file::write(std::span<std::uint8_t const> bytes) {
    DETENT_EXPECTS(!closed_);
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
    if (std::exchange(closed_, true)) {
        return;
    }
    // Some file systems report a full disk only here. EINVAL: this one cannot synchronize, which is no failure.
    if (::fsync(descriptor_) != 0 && errno != EINVAL) {
        fail(target_, "cannot be written");
    }
    if (!temporary_.empty() && ::close(std::exchange(descriptor_, -1)) != 0) {
        fail(target_, "cannot be written");
    }
}

/// Gives a file without one a name; answers whether it is that of the target, which it is unless that exists.
DETENT_INLINE bool atomic_file::give_name() {
    std::string const open_file = "/proc/self/fd/" + std::to_string(descriptor_);
    auto const link = [&](std::filesystem::path const& name) {
        return ::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0;
    };
    bool done = link(target_);
    for (int attempt = 0; !done && temporary_.empty(); ++attempt) {
        if (errno != EEXIST) {
            fail(target_, "cannot be created");
        }
        auto const name = temporary_name(target_, attempt);
        if (link(name)) {
            temporary_ = name;
        }
    }
    if (::close(std::exchange(descriptor_, -1)) != 0) {
        fail(target_, "cannot be written");
    }
    return done;
}

DETENT_INLINE void atomic_file::commit() {
    DETENT_EXPECTS(descriptor_ >= 0 || !temporary_.empty());
    close();
    if (temporary_.empty() && give_name()) {
        return;
    }
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
        fail(target_, "cannot be replaced");
    }
    temporary_.clear();
}

} // namespace detent::inline DETENT_ABI::io
