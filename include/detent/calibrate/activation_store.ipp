// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "detent/calibrate/activation_store.hpp"
#include "detent/core/contract.hpp"
#include "detent/core/eigen.hpp"
#include "detent/io/scratch_file.hpp"

namespace detent::inline DETENT_ABI {

/// The bytes of so many activations.
DETENT_INLINE std::uint64_t bytes_of_activations(index_t rows, index_t cols) {
    return static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols) * sizeof(float);
}

DETENT_INLINE activation_store::activation_store(activation_space& space, index_t rows, index_t cols)
    : space_(&space), rows_(rows), cols_(cols) {
    std::uint64_t const bytes = bytes_of_activations(rows, cols);
    if (space.take(bytes)) {
        memory_.resize(rows, cols);
    } else {
        file_.emplace(space.directory());
        file_->resize(bytes);
    }
}

DETENT_INLINE activation_store::~activation_store() {
    if (space_ != nullptr && !file_) {
        space_->give_back(bytes_of_activations(rows_, cols_));
    }
}

DETENT_INLINE void activation_store::swap(activation_store& other) noexcept {
    std::swap(space_, other.space_);
    std::swap(rows_, other.rows_);
    std::swap(cols_, other.cols_);
    memory_.swap(other.memory_);
    std::swap(file_, other.file_);
}

DETENT_INLINE matrix_view activation_store::read(index_t first, index_t count, matrix& room) const {
    DETENT_EXPECTS(first >= 0 && count >= 0 && first + count <= rows_);
    if (!file_) {
        return memory_.middleRows(first, count);
    }
    room.resize(count, cols_);
    file_->read(bytes_of_activations(first, cols_),
                {reinterpret_cast<std::uint8_t*>(room.data()), bytes_of_activations(count, cols_)});
    return room;
}

DETENT_INLINE void activation_store::write(index_t first, matrix_view x) {
    DETENT_EXPECTS(first >= 0 && first + x.rows() <= rows_ && x.cols() == cols_);
    if (!file_) {
        memory_.middleRows(first, x.rows()) = x;
        return;
    }
    bool const whole = x.outerStride() == cols_ || x.rows() <= 1;
    index_t const step = whole ? x.rows() : 1; // rows that are together in memory
    for (index_t row = 0; row < x.rows(); row += step) {
        file_->write(bytes_of_activations(first + row, cols_),
                     {reinterpret_cast<std::uint8_t const*>(x.row(row).data()), bytes_of_activations(step, cols_)});
    }
}

DETENT_INLINE matrix_view activation_store::all() const {
    return file_ ? view_of(reinterpret_cast<float const*>(file_->view().data()), rows_, cols_, cols_)
                 : matrix_view(memory_);
}

DETENT_INLINE void activation_store::release() const noexcept {
    if (file_) {
        file_->release();
    }
}

} // namespace detent::inline DETENT_ABI
