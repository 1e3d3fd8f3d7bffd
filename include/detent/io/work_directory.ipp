// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "detent/core/contract.hpp"
#include "detent/io/failure.hpp"
#include "detent/io/work_directory.hpp"

namespace detent::inline DETENT_ABI::io {

/// Synchronizes a file or directory.
DETENT_INLINE void sync_path(std::filesystem::path const& path) {
    int const descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) {
        fail(path, "cannot be opened");
    }
    bool const done = ::fsync(descriptor) == 0 || errno == EINVAL; // EINVAL: there is nothing to synchronize
    int const problem = errno;
    ::close(descriptor);
    if (!done) {
        fail(path, "cannot be written", problem);
    }
}

DETENT_INLINE void sync_directory(std::filesystem::path const& directory) {
    sync_path(directory.empty() ? std::filesystem::path(".") : directory);
}

/// The directory that a path names, through symbolic links and without a slash at its end.
DETENT_INLINE std::filesystem::path plain_path(std::filesystem::path const& path) {
    std::error_code failure;
    auto plain = std::filesystem::weakly_canonical(path, failure);
    if (failure) {
        throw error(path.string(), "cannot be examined: " + failure.message());
    }
    return plain.has_filename() ? plain : plain.parent_path();
}

DETENT_INLINE work_directory::work_directory(std::filesystem::path target) : target_(plain_path(target)) {
    std::error_code failure;
    auto const status = std::filesystem::status(target_, failure);
    if (std::filesystem::exists(status) && !std::filesystem::is_directory(status)) {
        throw error(target_.string(), "exists and is not a directory");
    }
    path_ = target_;
    path_ += ".part";
    result_ = path_ / "result";
    lock();
    try {
        bring_back();
        remove_result();
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

DETENT_INLINE void work_directory::lock() {
    for (;;) {
        std::error_code failure;
        std::filesystem::create_directories(path_, failure);
        if (failure) {
            throw error(path_.string(), "cannot be created: " + failure.message());
        }
        descriptor_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (descriptor_ < 0 && errno == ENOENT) {
            continue; // another program has just finished
        }
        if (descriptor_ < 0) {
            fail(path_, "cannot be opened");
        }
        struct ::stat here {
        }, there{};
        bool const locked = ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0;
        int const problem = errno;
        if (!locked && problem == EWOULDBLOCK) {
            ::close(descriptor_);
            throw error(target_.string(), "another program is writing it, in " + path_.string());
        }
        // A file system without locks (ENOLCK, ENOTSUP) leaves it to its users.
        bool const same = ::fstat(descriptor_, &here) == 0 && ::stat(path_.c_str(), &there) == 0 &&
                          here.st_ino == there.st_ino && here.st_dev == there.st_dev;
        if (same) {
            return;
        }
        ::close(descriptor_); // it was removed by the program that had it
    }
}

DETENT_INLINE work_directory::~work_directory() {
    if (descriptor_ < 0) {
        return;
    }
    std::error_code ignored;
    try {
        remove_result();
    } catch (error const&) { // the next program finds it
    }
    std::filesystem::remove(path_, ignored); // where it is empty
    ::close(descriptor_);
}

/// Removes what there is of a result. Directories in it are none of ours: they were in a target that has been replaced,
/// and go where they belong.
DETENT_INLINE void work_directory::remove_result() {
    std::error_code failure;
    if (!std::filesystem::exists(result_, failure)) {
        return;
    }
    for (auto const& entry : std::filesystem::directory_iterator(result_, failure)) {
        if (std::filesystem::is_directory(entry.symlink_status())) {
            auto const home = target_ / entry.path().filename();
            if (std::filesystem::exists(home) || std::rename(entry.path().c_str(), home.c_str()) != 0) {
                throw error(entry.path().string(), "belongs into " + target_.string() + "; move it there");
            }
        }
    }
    std::filesystem::remove_all(result_, failure);
    if (failure) {
        throw error(result_.string(), "cannot be removed: " + failure.message());
    }
}

DETENT_INLINE std::filesystem::path const& work_directory::result() {
    if (!std::exchange(begun_, true)) {
        std::error_code failure;
        std::filesystem::create_directory(result_, failure);
        if (failure) {
            throw error(result_.string(), "cannot be created: " + failure.message());
        }
    }
    return result_;
}

/// Puts the files of the target that the result lacks into it too.
DETENT_INLINE void work_directory::keep_files(std::set<std::string> const& obsolete) const {
    std::error_code failure;
    for (auto const& entry : std::filesystem::directory_iterator(target_, failure)) {
        auto const name = entry.path().filename();
        auto const home = result_ / name;
        // Directories follow when the two have changed places; temporary files of ours are what a killed program left.
        bool const directory = std::filesystem::is_directory(entry.symlink_status());
        bool const unfinished = name.string().starts_with(".detent-") && name.string().ends_with(".tmp");
        if (std::filesystem::exists(std::filesystem::symlink_status(home)) || obsolete.contains(name.string()) ||
            directory || unfinished) {
            continue;
        }
        std::error_code problem;
        if (entry.is_symlink()) {
            std::filesystem::copy_symlink(entry.path(), home, problem);
        } else {
            std::filesystem::create_hard_link(entry.path(), home, problem);
            if (problem) {
                std::filesystem::copy_file(entry.path(), home, problem);
            }
        }
        if (problem) {
            throw error(entry.path().string(), "cannot be kept: " + problem.message());
        }
    }
}

/// Ends what a program that was stopped while it moved directories has begun.
DETENT_INLINE void work_directory::bring_back() {
    auto const old = path_ / "old";
    std::error_code ignored;
    if (!std::filesystem::exists(old, ignored)) {
        return;
    }
    bool const lost = !std::filesystem::exists(target_, ignored);
    if (std::rename(old.c_str(), lost ? target_.c_str() : result_.c_str()) != 0) {
        fail(old, "cannot be moved");
    }
}

/// Makes the result the target.
DETENT_INLINE void work_directory::swap_in() {
    if (!std::filesystem::exists(target_)) {
        if (std::rename(result_.c_str(), target_.c_str()) != 0) {
            fail(target_, "cannot be created");
        }
        return;
    }
#if defined(__linux__)
    if (::renameat2(AT_FDCWD, result_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
        return;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        fail(target_, "cannot be replaced");
    }
#endif
    auto const old = path_ / "old";
    if (std::rename(target_.c_str(), old.c_str()) != 0) {
        fail(target_, "cannot be replaced");
    }
    if (std::rename(result_.c_str(), target_.c_str()) != 0) {
        int const problem = errno;
        static_cast<void>(std::rename(old.c_str(), target_.c_str()));
        fail(target_, "cannot be replaced", problem);
    }
    static_cast<void>(std::rename(old.c_str(), result_.c_str()));
}

DETENT_INLINE void work_directory::commit(std::set<std::string> const& obsolete) {
    DETENT_EXPECTS(begun_ && !committed_);
    std::error_code ignored;
    if (std::filesystem::exists(target_, ignored)) {
        keep_files(obsolete);
    }
    for (auto const& entry : std::filesystem::directory_iterator(result_)) {
        if (entry.is_regular_file() && !entry.is_symlink()) {
            sync_path(entry.path());
        }
    }
    sync_directory(result_);
    swap_in();
    committed_ = true;
    sync_directory(target_.parent_path());
    remove_result(); // the old target; its directories move to the new one
    std::filesystem::remove_all(path_, ignored);
}

} // namespace detent::inline DETENT_ABI::io
