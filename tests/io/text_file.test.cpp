// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include "detent/io/text_file.hpp"

#include <string>

#include <gtest/gtest.h>

#include "failure_message.hpp"
#include "temporary_directory.hpp"

namespace {

using detent::io::read_text;
using detent::io::write_text;

TEST(text_file, reads_what_was_written) {
    temporary_directory const directory;
    for (auto const& text : {std::string(), std::string("a\r\nb\0c\xFF\n", 8), std::string(100000, 'x')}) {
        write_text(directory / "a", text);
        EXPECT_EQ(read_text(directory / "a"), text);
    }
    EXPECT_EQ(directory.entries(), 1);
}

TEST(text_file, errors_name_the_file) {
    temporary_directory const directory;
    auto const path = (directory / "missing").string();
    EXPECT_TRUE(contains(failure_message([&] { read_text(path); }), path + ": cannot be opened"));
    EXPECT_TRUE(contains(failure_message([&] { write_text(path + "/a", "text"); }), path + "/a: cannot be created"));
}

} // namespace
