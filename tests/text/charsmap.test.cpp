// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/text/charsmap.hpp"
#include "text_support.hpp"

namespace {

using namespace detent::text;
using namespace std::string_literals;

/// The bytes of a map, with a node of the trie in 256 units of its own, which wastes space and needs no search for it.
std::string map_of(std::map<std::string, std::string> const& entries) {
    std::map<std::string, std::uint32_t> nodes{{"", 0}}; // beginnings of keys, by their block
    for (auto const& [key, text] : entries) {
        for (std::size_t size = 1; size <= key.size(); ++size) {
            nodes.emplace(key.substr(0, size), static_cast<std::uint32_t>(nodes.size()));
        }
    }
    // Node n has its children in block n + 1; a child of byte b is the unit b there, its value the unit 0 of its block.
    std::vector<std::uint32_t> units(256 * (nodes.size() + 1));
    auto const offset = [](std::uint32_t from, std::uint32_t block) {
        std::uint32_t const distance = from ^ (256 * block); // a multiple of 256 but for the bits of `from`
        return distance < (1U << 21) ? distance << 10 : 0;
    };
    std::string texts;
    units[0] = offset(0, 1);
    for (auto const& [prefix, number] : nodes) {
        if (prefix.empty()) {
            continue;
        }
        auto const byte = static_cast<unsigned char>(prefix.back());
        std::uint32_t const place = 256 * (nodes.at(prefix.substr(0, prefix.size() - 1)) + 1) + byte;
        units[place] = offset(place, number + 1) | byte;
        if (auto const found = entries.find(prefix); found != entries.end()) {
            units[place] |= 1U << 8;
            units[256 * (number + 1)] = static_cast<std::uint32_t>(texts.size()) | (1U << 31);
            texts += found->second + '\0';
        }
    }
    std::string bytes;
    auto const add = [&](std::uint32_t word) {
        for (unsigned i = 0; i < 4; ++i) {
            bytes += static_cast<char>((word >> (8 * i)) & 0xFF);
        }
    };
    add(static_cast<std::uint32_t>(4 * units.size()));
    for (auto const unit : units) {
        add(unit);
    }
    return bytes + texts;
}

TEST(charsmap, puts_texts_in_the_place_of_characters_and_clusters) {
    NEEDS_UNICODE();
    charsmap const map(map_of({{"\uFF21", "A"}, {"e\u0301", "\u00E9"}, {"x", ""}, {"\u2122", "TM"}}), "map");
    EXPECT_EQ(map.apply("\uFF21b\u2122"), "AbTM");
    EXPECT_EQ(map.apply("ce\u0301"), "c\u00E9");
    EXPECT_EQ(map.apply("axb"), "ab");
    EXPECT_EQ(map.apply("e"), "e");
    EXPECT_EQ(map.apply(""), "");
    EXPECT_EQ(map.apply("\0"s), "\0"s);
    EXPECT_EQ(map.apply("x\u0301\u0301\u0301"), "\u0301\u0301\u0301"); // longer than 5 bytes: by characters
    EXPECT_EQ(map.apply("x\u0301"), ""); // shorter: all of it by its beginning, as `tokenizers` has it
}

TEST(charsmap, refuses_what_a_search_would_leave) {
    NEEDS_UNICODE();
    std::string const good = map_of({{"ab", "c"}});
    auto const problem = [](std::string const& bytes) { return failure_message([&] { charsmap(bytes, "map"); }); };
    EXPECT_EQ(problem(good), "");
    EXPECT_EQ(problem(""), "map: has a charsmap that is broken");
    EXPECT_NE(problem(good.substr(0, good.size() - 1)), ""); // no end of the last text
    EXPECT_NE(problem(good.substr(0, 100)), "");
    for (std::size_t i = 0; i < good.size(); ++i) {
        for (char const c : {'\x7F', '\xFF'}) {
            std::string bad = good;
            bad[i] = c;
            try { // either refused or searched without harm
                charsmap const map(bad, "map");
                map.apply("abcab\u00E9");
            } catch (detent::error const&) {}
        }
    }
    std::string far = good;
    far[7] = '\x7F'; // the children of the root
    EXPECT_NE(problem(far), "");
}

TEST(charsmap, base64) {
    EXPECT_EQ(base64_bytes("", "x"), "");
    EXPECT_EQ(base64_bytes("Zg==", "x"), "f");
    EXPECT_EQ(base64_bytes("Zm9vYmE=", "x"), "fooba");
    EXPECT_EQ(base64_bytes("/+8A", "x"), "\xFF\xEF\0"s);
    EXPECT_EQ(failure_message([] { base64_bytes("Z!", "x"); }), "x: is not base64");
}

} // namespace
