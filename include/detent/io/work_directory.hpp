// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <filesystem>
#include <set>
#include <string>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::io {

/// Sees to it that the names of files in a directory are on disk. @throws error naming it.
void sync_directory(std::filesystem::path const& directory);

/// A directory of results that appears whole or not at all, also in the place of one that exists, and the place where
/// it is made: `<target>.part` beside it, which one program has at a time (`flock`), and which is there again for the
/// next one when this one is stopped. What is in `result()` becomes the target by `commit`; before that the target is
/// as it was.
class work_directory {
public:
    /// Makes `<target>.part`, or takes the one that a program left. @throws error when another program works there, or
    /// it cannot be made.
    explicit work_directory(std::filesystem::path target);
    work_directory(work_directory const&) = delete;
    work_directory& operator=(work_directory const&) = delete;

    /// Ends the work; `<target>.part` is removed where nothing but an unfinished result is in it.
    ~work_directory();

    /// Where what is kept for the next program can be.
    std::filesystem::path const& path() const { return path_; }

    std::filesystem::path const& target() const { return target_; }

    /// An empty directory, made by the first call.
    std::filesystem::path const& result();

    /// Puts the result in the place of the target and removes all else. Files of the target which the result lacks are
    /// kept in it, but for `obsolete` ones. All files are on disk before. Where the system cannot exchange two
    /// directories, a target that exists is moved to `<target>.part/old` first. @throws error, with the target as it
    /// was.
    void commit(std::set<std::string> const& obsolete = {});

private:
    void lock();
    void bring_back();
    void remove_result();
    void keep_files(std::set<std::string> const& obsolete) const;
    void swap_in();

    std::filesystem::path target_, path_, result_;
    int descriptor_ = -1;
    bool begun_ = false, committed_ = false;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/work_directory.ipp" // IWYU pragma: export
#endif
