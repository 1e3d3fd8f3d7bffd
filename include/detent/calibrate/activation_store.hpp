// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <utility>

#include "detent/core/eigen.hpp"
#include "detent/core/needs_exceptions.hpp"
#include "detent/io/scratch_file.hpp"

namespace detent::inline DETENT_ABI {

/// Memory that the activations of all windows may take together, and where those go that do not fit into it.
class activation_space {
public:
    /// By default there is no limit.
    explicit activation_space(std::uint64_t bytes = std::numeric_limits<std::uint64_t>::max(),
                              std::filesystem::path directory = {})
        : left_(bytes), directory_(std::move(directory)) {}
    activation_space(activation_space const&) = delete;
    activation_space& operator=(activation_space const&) = delete;

    /// Takes so many bytes of the memory that is left; answers whether they were there.
    bool take(std::uint64_t bytes) {
        bool const fits = bytes <= left_;
        left_ -= fits ? bytes : 0;
        return fits;
    }

    /// Gives back what was taken.
    void give_back(std::uint64_t bytes) { left_ += bytes; }

    /// Where temporary files are made.
    std::filesystem::path const& directory() const { return directory_; }

private:
    std::uint64_t left_;
    std::filesystem::path directory_;
};

/// The activations (token, feature) of all windows, in memory or, where its space is used up, in a temporary file as
/// the same floats (`scratch_file`), which is read and written a few windows at a time. The space must outlive it.
class activation_store {
public:
    /// Nothing yet.
    activation_store() = default;

    /// Room for so many activations, whose numbers are not defined yet. @throws error when there is no room on disk.
    activation_store(activation_space& space, index_t rows, index_t cols);
    activation_store(activation_store&& other) noexcept { swap(other); }
    activation_store& operator=(activation_store&& other) noexcept {
        swap(other);
        return *this;
    }
    activation_store(activation_store const&) = delete;
    activation_store& operator=(activation_store const&) = delete;
    ~activation_store();

    index_t rows() const { return rows_; }
    index_t cols() const { return cols_; }
    bool empty() const { return rows_ == 0; }

    /// Whether the numbers are in a file.
    bool in_file() const { return file_.has_value(); }

    /// Some rows, valid until they are written or `room`, which may hold them, changes.
    matrix_view read(index_t first, index_t count, matrix& room) const;

    /// Replaces some rows.
    void write(index_t first, matrix_view x);

    /// All rows, valid until one is written; those in a file are mapped, and take memory as they are touched.
    matrix_view all() const;

    /// Gives back the memory that looking at `all` took.
    void release() const noexcept;

private:
    void swap(activation_store& other) noexcept;

    activation_space* space_ = nullptr;
    index_t rows_ = 0, cols_ = 0;
    matrix memory_; // (token, feature), where there is no file
    std::optional<io::scratch_file> file_;
};

} // namespace detent::inline DETENT_ABI

#if !defined(DETENT_COMPILED)
#include "detent/calibrate/activation_store.ipp" // IWYU pragma: export
#endif
