// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/text/word_cache.hpp"

namespace {

using detent::text::word_cache;

TEST(word_cache, keeps_what_it_is_given) {
    word_cache cache;
    EXPECT_FALSE(cache.find("a"));
    auto const ids_of = [](int i) { return std::vector<std::int32_t>(static_cast<std::size_t>(i % 5), i); };
    constexpr int words = 20000;
    for (int i = 0; i < words; ++i) {
        cache.add("w" + std::to_string(i), ids_of(i));
    }
    for (int i = 0; i < words; ++i) {
        auto const found = cache.find("w" + std::to_string(i));
        ASSERT_TRUE(found);
        ASSERT_EQ(std::vector<std::int32_t>(found->begin(), found->end()), ids_of(i));
    }
    EXPECT_FALSE(cache.find("w" + std::to_string(words)));
}

TEST(word_cache, leaves_long_words_out) {
    word_cache cache;
    std::string const longest(64, 'x');
    cache.add(longest, std::vector<std::int32_t>{1});
    cache.add(longest + "x", std::vector<std::int32_t>{2});
    EXPECT_TRUE(cache.find(longest));
    EXPECT_FALSE(cache.find(longest + "x"));
}

} // namespace
