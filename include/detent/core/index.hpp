// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <cstddef>
#include <cstdint>

#include "detent/core/abi.hpp"

namespace detent::inline DETENT_ABI {

/// A signed size or position. Not `index`: the C library has a function of that name.
using index_t = std::ptrdiff_t;

/// One quantized value: a position in a grid, at most 8 bits wide.
using code = std::uint8_t;

/// The numbers of rows and columns of a matrix or tile.
struct extents {
    index_t rows = 0;
    index_t cols = 0;

    constexpr index_t size() const { return rows * cols; }
    friend constexpr bool operator==(extents, extents) = default;
};

/// `a / b`, rounded up; both positive.
constexpr index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }

/// The number of elements of an array, as the language wants it: without a sign.
constexpr std::size_t array_size(index_t n) { return static_cast<std::size_t>(n); }

} // namespace detent::inline DETENT_ABI
