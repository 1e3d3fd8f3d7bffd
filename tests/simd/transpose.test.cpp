// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <vector>

#include <gtest/gtest.h>

#include "detent/simd/transpose.hpp"

namespace {

using namespace detent;

/// Transposes numbers of type `T` of `shape` with both matrices at these offsets and with this much between rows.
template <class T> void expect_transpose(extents shape, index_t offset, index_t gap, simd::destination where) {
    auto const size = static_cast<index_t>(sizeof(T));
    index_t const from_stride = shape.cols * size + gap;
    index_t const to_stride = shape.rows * size + gap;
    std::vector<std::uint8_t> from(static_cast<std::size_t>(shape.rows * from_stride + 64));
    for (std::size_t i = 0; i < from.size(); ++i) {
        from[i] = static_cast<std::uint8_t>(i * 37 + i / 256);
    }
    std::vector<std::uint8_t> expected(static_cast<std::size_t>(shape.cols * to_stride + 64), 0xA5);
    std::vector<std::uint8_t> to = expected;
    for (index_t r = 0; r < shape.rows; ++r) {
        for (index_t c = 0; c < shape.cols; ++c) {
            for (index_t b = 0; b < size; ++b) {
                expected[static_cast<std::size_t>(offset + c * to_stride + r * size + b)] =
                    from[static_cast<std::size_t>(offset + r * from_stride + c * size + b)];
            }
        }
    }
    simd::transpose<T>(from.data() + offset, from_stride, shape, to.data() + offset, to_stride, where);
    simd::end_stream();
    ASSERT_EQ(to, expected) << sizeof(T) << " bytes, (" << shape.rows << ", " << shape.cols << "), offset " << offset;
}

TEST(transpose, swaps_rows_and_columns_of_any_shape_at_any_alignment) {
    for (auto const where : {simd::destination::cache, simd::destination::memory}) {
        for (index_t const rows : {0, 1, 3, 4, 15, 16, 17, 48, 64, 80, 128, 257}) {
            for (index_t const cols : {0, 1, 3, 4, 15, 16, 17, 48, 64, 80, 128, 257, 300}) {
                for (index_t const offset : {0, 4, 16, 17, 36}) {
                    expect_transpose<std::uint8_t>({rows, cols}, offset, 0, where);
                    expect_transpose<std::uint32_t>({rows, cols}, offset, 0, where);
                }
                expect_transpose<std::uint8_t>({rows, cols}, 0, 3, where);
                expect_transpose<std::uint32_t>({rows, cols}, 0, 64, where);
            }
        }
    }
}

TEST(register16, zips_halves) {
    std::uint8_t a[16];
    std::uint8_t b[16];
    for (int i = 0; i < 16; ++i) {
        a[i] = static_cast<std::uint8_t>(i);
        b[i] = static_cast<std::uint8_t>(100 + i);
    }
    auto const zip = [&]<class T>(T) {
        using registers = simd::register16<T>;
        constexpr int n = 16 / sizeof(T);
        std::uint8_t first[16];
        std::uint8_t second[16];
        registers::store(registers::zip_first(registers::load(a), registers::load(b)), first);
        registers::store(registers::zip_second(registers::load(a), registers::load(b)), second);
        for (int i = 0; i < n; ++i) {
            for (std::size_t byte = 0; byte < sizeof(T); ++byte) {
                std::size_t const at = static_cast<std::size_t>(i) * sizeof(T) + byte;
                std::uint8_t const* const source = i % 2 == 0 ? a : b;
                EXPECT_EQ(first[at], source[static_cast<std::size_t>(i / 2) * sizeof(T) + byte]);
                EXPECT_EQ(second[at], source[static_cast<std::size_t>(n / 2 + i / 2) * sizeof(T) + byte]);
            }
        }
    };
    zip(std::uint8_t{});
    zip(std::uint32_t{});
    zip(std::uint64_t{});
}

} // namespace
