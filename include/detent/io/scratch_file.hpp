// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI::io {

/// A file without a name for what does not fit into memory: the system removes it when the program ends, however that
/// happens. Bytes are written at the end or over others, and read from anywhere. Every failure throws `error` naming
/// the directory. One thread at a time.
class scratch_file {
public:
    /// Makes an empty file in an existing `directory`.
    explicit scratch_file(std::filesystem::path directory);
    scratch_file(scratch_file&& other) noexcept;
    scratch_file& operator=(scratch_file&& other) noexcept;
    scratch_file(scratch_file const&) = delete;
    scratch_file& operator=(scratch_file const&) = delete;
    ~scratch_file();

    /// Bytes that the file has.
    std::uint64_t size() const { return size_; }

    /// Makes the file so long, with zeros at its end; the disk has room for them, or an error is thrown.
    void resize(std::uint64_t bytes);

    /// Writes bytes at `offset`, up to the end or beyond it.
    void write(std::uint64_t offset, std::span<std::uint8_t const> bytes);

    /// Reads bytes that the file has.
    void read(std::uint64_t offset, std::span<std::uint8_t> bytes) const;

    /// All bytes as they are now and will be, until the size changes: pages are read when touched.
    std::span<std::uint8_t const> view() const;

    /// Gives back the memory of the pages of `view` that were touched; they are read again when they are wanted.
    void release() const noexcept;

private:
    void unmap() const noexcept;

    std::filesystem::path directory_;
    int descriptor_ = -1;
    std::uint64_t size_ = 0;
    mutable std::span<std::uint8_t const> view_;
};

} // namespace detent::inline DETENT_ABI::io

#if !defined(DETENT_COMPILED)
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/scratch_file.ipp" // IWYU pragma: export
#endif
