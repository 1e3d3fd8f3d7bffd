// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "detent/quantizer/spec.hpp"
#include "detent/quantizer/vocabulary.hpp"
#include "detent/quantizer/vocabulary_text.hpp"
#include "detent/quantizer/word.hpp"
#include "io/failure_message.hpp"

namespace {

using namespace detent;
using namespace detent::vocabulary;

TEST(vocabulary_text, the_documentation_is_up_to_date) {
    auto const path = std::filesystem::path(DETENT_EXAMPLES_DIR).parent_path() / "docs" / "specification.md";
    std::ifstream file(path, std::ios::binary);
    std::string const written{std::istreambuf_iterator<char>(file), {}};
    std::string const right = markdown();
    EXPECT_TRUE(written == right) << path.string() << " should be what `detent words --markdown` prints:\n\n"
                                  << right;
}

TEST(vocabulary_text, lists_needs) {
    word const none{.name = "x", .help = "does it"};
    EXPECT_EQ(explanation(none), "does it");
    auto const any = [](spec const&) { return true; };
    word const some{.name = "x",
                    .help = "does it",
                    .needs = {need{any, "needs a"}, need{any, "needs b"}, need{any, "may not"}, need{any, "needs c"}}};
    EXPECT_EQ(explanation(some), "does it; needs a, b; may not; needs c");
}

TEST(vocabulary_text, wraps_lines) {
    EXPECT_EQ(wrapped("ab", "one two three", 4, 11), "ab  one two\n    three\n");
    EXPECT_EQ(wrapped("ab", "one two three", 4, 10), "ab  one\n    two\n    three\n");
    EXPECT_EQ(wrapped("abcdef", "one", 4, 5), "abcdefone\n");
    EXPECT_EQ(wrapped("", "toolong a", 0, 3), "toolong\na\n");
}

TEST(vocabulary_text, says_everything_in_a_terminal) {
    std::string const page = plain_text(80);
    std::istringstream lines(page);
    for (std::string line; std::getline(lines, line);) {
        EXPECT_LE(line.size(), 80U) << line;
        EXPECT_FALSE(line.ends_with(' ')) << line;
    }
    for (auto const& s : sections) {
        EXPECT_TRUE(contains(page, "\n" + std::string(s.title) + "\n"));
        for (word const& w : s.words) {
            EXPECT_TRUE(contains(page, "\n  " + w.example() + " ")) << w.example();
        }
    }
}

} // namespace
