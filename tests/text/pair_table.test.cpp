// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <utility>

#include <gtest/gtest.h>

#include "detent/text/pair_table.hpp"

namespace {

using detent::text::pair_table;

TEST(pair_table, has_what_a_map_has) {
    std::mt19937 random(1);
    pair_table table;
    EXPECT_EQ(table.find(0, 0), nullptr);
    std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> wanted;
    std::int32_t const most = std::numeric_limits<std::int32_t>::max();
    auto const id = [&] {
        return static_cast<std::int32_t>(random() % 3 == 0 ? random() % 100 : random() & 0x7FFFFFFF);
    };
    wanted[{most, most}] = 1;
    table.set(most, most, {0, 1});
    for (int i = 0; i < 20000; ++i) {
        auto const left = id();
        auto const right = id();
        wanted[{left, right}] = i;
        table.set(left, right, {i / 2, i}); // in the place of one that is there
    }
    for (auto const& [pair, value] : wanted) {
        auto const* found = table.find(pair.first, pair.second);
        ASSERT_NE(found, nullptr);
        ASSERT_EQ(found->id, value);
        ASSERT_EQ(found->rank, value / 2);
        auto const other = std::pair(pair.second, pair.first);
        ASSERT_EQ(table.find(other.first, other.second) != nullptr, wanted.contains(other));
    }
}

} // namespace
