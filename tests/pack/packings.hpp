// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <vector>

#include <gtest/gtest.h>

#include "detent/pack/packing.hpp"
#include "pack/random_codes.hpp"

namespace detent::test {

/// Shapes that are smaller than blocks and pieces, larger, and with something left over; columns are multiples of
/// `unit`.
inline std::vector<extents> ragged_shapes(index_t unit = 1) {
    std::vector<extents> shapes;
    for (index_t cols = 0; cols <= 300; ++cols) {
        for (index_t rows : {1, 8, 13}) {
            shapes.push_back({rows, cols * unit});
        }
    }
    for (index_t rows : {0, 3, 16, 17, 64, 100, 127, 128, 129, 530}) {
        for (index_t cols : {1, 31, 64, 97, 256, 1025}) {
            shapes.push_back({rows, cols * unit});
        }
    }
    return shapes;
}

/// `pack` writes exactly `bytes(shape)` bytes, of which `get` and `unpack` read the codes; at any alignment.
template <Packing P> void expect_round_trip(extents shape, index_t offset = 0) {
    auto const codes = random_codes(P::bits, shape.size());
    auto const size = static_cast<std::size_t>(P::bytes(shape));
    std::vector<std::uint8_t> memory(size + 128, 0xA5);
    std::uint8_t* const bytes = memory.data() + offset;
    P::pack(codes.data(), shape, bytes);
    for (std::size_t i = 0; i < memory.size(); ++i) {
        if (memory.data() + i < bytes || memory.data() + i >= bytes + size) {
            ASSERT_EQ(memory[i], 0xA5) << "written outside: " << i;
        }
    }
    for (index_t row = 0; row < shape.rows; ++row) {
        for (index_t col = 0; col < shape.cols; ++col) {
            ASSERT_EQ(P::get(bytes, shape, row, col), codes[static_cast<std::size_t>(row * shape.cols + col)])
                << P::bits << " bits, (" << shape.rows << ", " << shape.cols << ") at " << row << ", " << col;
        }
    }
    // Memory of exactly its size, so that a sanitizer sees what is read past the end.
    std::vector<std::uint8_t> const exact(bytes, bytes + size);
    std::vector<code> result(codes.size() + 16, 0x5A);
    P::unpack(exact.data(), shape, result.data());
    ASSERT_EQ(std::vector(result.end() - 16, result.end()), std::vector<code>(16, 0x5A));
    result.resize(codes.size());
    ASSERT_EQ(result, codes) << P::bits << " bits, (" << shape.rows << ", " << shape.cols << ")";
}

} // namespace detent::test
