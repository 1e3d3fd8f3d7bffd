// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <cstdint>
#include <utility>

#include <gtest/gtest.h>

#include "detent/core/buffer.hpp"
#include "io/failure_message.hpp"

namespace {

using detent::buffer;
using detent::index_t;

buffer counting(index_t size) {
    buffer b(size);
    for (index_t i = 0; i < size; ++i) {
        b.data()[i] = static_cast<std::uint8_t>(i + 1);
    }
    return b;
}

TEST(buffer, is_aligned_and_zeroed_with_its_padding) {
    for (index_t const size : {0, 1, 63, 64, 65, 1000}) {
        buffer const b(size);
        EXPECT_EQ(b.size(), size);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b.data()) % buffer::alignment, 0U);
        EXPECT_TRUE(std::all_of(b.data(), b.data() + size + static_cast<index_t>(buffer::padding),
                                [](std::uint8_t byte) { return byte == 0; }));
    }
}

TEST(buffer, default_is_empty) {
    buffer const b;
    EXPECT_EQ(b.size(), 0);
    EXPECT_TRUE(b.bytes().empty());
    EXPECT_EQ(buffer(b), b);
}

TEST(buffer, copies_are_independent) {
    buffer const a = counting(100);
    buffer b = a;
    EXPECT_EQ(a, b);
    EXPECT_NE(a.data(), b.data());
    b.data()[99] = 0;
    EXPECT_NE(a, b);
    EXPECT_EQ(a.data()[99], 100);
    b = a;
    EXPECT_EQ(a, b);
    EXPECT_NE(a.data(), b.data());
}

TEST(buffer, a_move_takes_the_bytes_and_leaves_nothing) {
    buffer a = counting(100);
    auto const* const bytes = a.data();
    buffer b = std::move(a);
    EXPECT_EQ(b.data(), bytes);
    EXPECT_EQ(b, counting(100));
    EXPECT_EQ(a.size(), 0); // NOLINT(bugprone-use-after-move)
    a = std::move(b);
    EXPECT_EQ(a.data(), bytes);
    EXPECT_EQ(a.size(), 100);
}

TEST(buffer, equality_compares_sizes_and_bytes) {
    EXPECT_EQ(counting(10), counting(10));
    EXPECT_NE(counting(10), counting(11));
    EXPECT_NE(buffer(10), counting(10));
    EXPECT_NE(buffer(1), buffer(0));
}

TEST(buffer, has_no_negative_size) {
    EXPECT_EQ(failure_message([] { buffer(-5); }), "buffer: its size is -5, not 0 or more");
}

} // namespace
