// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/text_file.hpp"
#include "detent/text/read_text.hpp"
#include "io/temporary_directory.hpp"
#include "text_support.hpp"

namespace {

using detent::text::read_text_files;

TEST(read_text, files_and_lines) {
    temporary_directory directory;
    std::vector<std::filesystem::path> const files{directory / "a.txt", directory / "b.jsonl"};
    detent::io::write_text(files[0], "one\ntwo\n");
    detent::io::write_text(files[1], "{\"text\": \"x\\ny\", \"more\": 1}\r\n\n  \n{\"text\": \"\"}");
    auto const read = read_text_files(files);
    ASSERT_EQ(read.size(), 3U);
    EXPECT_EQ(read[0].text, "one\ntwo\n");
    EXPECT_EQ(read[0].name, files[0].string());
    EXPECT_EQ(read[1].text, "x\ny");
    EXPECT_EQ(read[1].name, files[1].string() + ", line 1");
    EXPECT_EQ(read[2].text, "");
    EXPECT_EQ(read[2].name, files[1].string() + ", line 4");
    EXPECT_TRUE(read_text_files({}).empty());
}

TEST(read_text, names_the_line_that_is_wrong) {
    temporary_directory directory;
    std::vector<std::filesystem::path> const files{directory / "b.jsonl"};
    auto const problem = [&](std::string const& text) {
        detent::io::write_text(files[0], text);
        return failure_message([&] { read_text_files(files); });
    };
    std::string const line = files[0].string() + ", line 2";
    EXPECT_TRUE(contains(problem("{\"text\": \"a\"}\n{\"text\": "), line + ": is not valid JSON"));
    EXPECT_TRUE(contains(problem("{\"text\": \"a\"}\n{\"txt\": \"a\"}"), line + ", field 'text': is missing"));
    EXPECT_TRUE(contains(problem("{\"text\": \"a\"}\n{\"text\": 3}"), line + ", field 'text': is not a string"));
    EXPECT_TRUE(contains(problem("{\"text\": \"a\"}\n[1]"), line + ": is not a JSON object"));
    std::vector<std::filesystem::path> const missing{directory / "none.txt"};
    EXPECT_TRUE(contains(failure_message([&] { read_text_files(missing); }), "none.txt"));
}

} // namespace
