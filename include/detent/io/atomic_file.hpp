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
#include "detent/io/failure.hpp"

namespace detent::inline DETENT_ABI::io {

/// A file that appears complete or not at all: bytes go to a temporary file in the same directory, which `commit`
/// renames over the target. Without `commit` the destructor removes the temporary and the target is as it was.
/// Every failure throws `error` naming the target.
class atomic_file {
public:
    /// Opens the temporary file. Refuses a target that exists and is not a regular file.
    explicit atomic_file(std::filesystem::path target) : target_(std::move(target)) {
        std::error_code ignored; // a target that cannot be examined cannot be created either
        auto const status = std::filesystem::status(target_, ignored);
        if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
            throw error(target_.string(), "exists and is not a regular file");
        }
        // Not mkstemp: it makes files that only their owner can read.
        for (int attempt = 0; descriptor_ < 0; ++attempt) {
            temporary_ = target_.parent_path() /
                         (".detent-" + std::to_string(::getpid()) + "-" + std::to_string(attempt) + ".tmp");
            descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
            if (descriptor_ < 0 && errno != EEXIST) {
                fail(target_, "cannot be created");
            }
        }
    }
    atomic_file(atomic_file&& other) noexcept
        : target_(std::move(other.target_)), temporary_(std::exchange(other.temporary_, {})),
          descriptor_(std::exchange(other.descriptor_, -1)) {}
    atomic_file& operator=(atomic_file&& other) noexcept {
        std::swap(target_, other.target_);
        std::swap(temporary_, other.temporary_);
        std::swap(descriptor_, other.descriptor_);
        return *this;
    }
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
    void write(std::span<std::uint8_t const> bytes) {
        DETENT_EXPECTS(descriptor_ >= 0);
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

    /// Appends text.
    void write(std::string_view text) {
        write(std::span(reinterpret_cast<std::uint8_t const*>(text.data()), text.size()));
    }

    /// Ends writing: everything is on disk or an error is thrown. The target is still as it was.
    void close() {
        if (descriptor_ < 0) {
            return;
        }
        // Some file systems report a full disk only here. EINVAL: this one cannot synchronize, which is no failure.
        if (::fsync(descriptor_) != 0 && errno != EINVAL) {
            fail(target_, "cannot be written");
        }
        if (::close(std::exchange(descriptor_, -1)) != 0) {
            fail(target_, "cannot be written");
        }
    }

    /// Closes the file and puts it in place of the target.
    void commit() {
        DETENT_EXPECTS(!temporary_.empty());
        close();
        if (std::rename(temporary_.c_str(), target_.c_str()) != 0) {
            fail(target_, "cannot be replaced");
        }
        temporary_.clear();
    }

private:
    std::filesystem::path target_;
    std::filesystem::path temporary_; // empty: nothing to remove
    int descriptor_ = -1;
};

} // namespace detent::inline DETENT_ABI::io
