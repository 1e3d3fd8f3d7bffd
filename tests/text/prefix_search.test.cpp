// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/text/prefix_search.hpp"

namespace {

using namespace detent::text;

std::vector<std::pair<std::size_t, std::int32_t>> found(prefix_search const& search, std::string const& text) {
    std::vector<std::pair<std::size_t, std::int32_t>> result;
    search.for_each(text, [&](std::size_t size, std::int32_t number) { result.emplace_back(size, number); });
    return result;
}

TEST(prefix_search, finds_what_comparing_all_finds) {
    std::mt19937 random(1);
    auto const word = [&](std::size_t longest) {
        std::string result;
        for (std::size_t n = 1 + random() % longest; n > 0; --n) {
            result += static_cast<char>("ab\xFF"[random() % 3]);
        }
        return result;
    };
    for (int round = 0; round < 200; ++round) {
        std::set<std::string> texts;
        for (std::size_t n = random() % 30; n > 0; --n) {
            texts.insert(word(6));
        }
        std::vector<prefix_search::entry> entries(texts.size());
        std::int32_t number = 0;
        for (auto const& text : texts) {
            entries[static_cast<std::size_t>(number)] = {text, number};
            ++number;
        }
        std::ranges::shuffle(entries, random);
        prefix_search const search(entries);
        for (int i = 0; i < 20; ++i) {
            std::string const text = word(8);
            std::vector<std::pair<std::size_t, std::int32_t>> wanted;
            for (std::size_t size = 1; size <= text.size(); ++size) {
                for (auto const& [entry, value] : entries) {
                    if (entry == text.substr(0, size)) {
                        wanted.emplace_back(size, value);
                    }
                }
            }
            ASSERT_EQ(found(search, text), wanted);
            ASSERT_TRUE(search.begins(text[0]) || wanted.empty());
        }
    }
}

TEST(prefix_search, of_two_equal_texts_the_first_stays) {
    prefix_search const search({{"a", 7}, {"a", 8}});
    EXPECT_EQ(found(search, "ab"), (std::vector<std::pair<std::size_t, std::int32_t>>{{1, 7}}));
    EXPECT_TRUE(found(prefix_search(), "a").empty());
    EXPECT_TRUE(found(search, "").empty());
}

} // namespace
