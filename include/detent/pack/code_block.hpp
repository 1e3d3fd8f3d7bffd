// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>

#include "detent/core/contract.hpp"
#include "detent/core/error.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// A part of a matrix of codes (out, in): `shape.rows` rows from `row` on, of each `shape.cols` codes from `col` on. It
/// begins at multiples of `row_step` and `col_step`, and it ends at such or with the matrix; so no block of any file
/// format and no word of a bit stream is cut.
struct code_block {
    static constexpr index_t row_step = 512;
    static constexpr index_t col_step = 256;

    index_t row;
    index_t col;
    extents shape;
};

/// @throws error when a matrix of codes has a negative shape.
constexpr void expect_shape(extents shape) {
    expect_valid(shape.rows >= 0 && shape.cols >= 0, "matrix of codes", "has a negative shape");
}

/// Calls `f(code_block)` for blocks of at most `row_step` rows and `cols` columns, a multiple of `col_step`, that cover
/// a matrix of `shape`.
template <class F> void for_each_code_block(extents shape, index_t cols, F const& f) {
    DETENT_EXPECTS(cols > 0 && cols % code_block::col_step == 0);
    for (index_t row = 0; row < shape.rows; row += code_block::row_step) {
        for (index_t col = 0; col < shape.cols; col += cols) {
            f(code_block{
                row, col, {std::min(code_block::row_step, shape.rows - row), std::min(cols, shape.cols - col)}});
        }
    }
}

} // namespace detent::inline DETENT_ABI
