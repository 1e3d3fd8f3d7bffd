// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <cstdint>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/io/scratch_file.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace detent::io {
namespace {

TEST(scratch_file, gives_back_what_was_written_and_has_no_name) {
    temporary_directory const directory;
    scratch_file file(directory.path());
    std::vector<std::uint8_t> const a{1, 2, 3, 4, 5}, b{6, 7};
    file.write(0, a);
    file.write(5, a);
    file.write(3, b);
    EXPECT_EQ(file.size(), 10U);
    std::vector<std::uint8_t> all(10);
    file.read(0, all);
    std::vector<std::uint8_t> const expected{1, 2, 3, 6, 7, 1, 2, 3, 4, 5};
    EXPECT_EQ(all, expected);
    EXPECT_EQ(std::vector(file.view().begin(), file.view().end()), expected);
    file.release();
    file.write(0, b); // a view shows what is written later
    EXPECT_EQ(file.view()[1], 7);
    file.resize(12);
    EXPECT_EQ(file.view().size(), 12U);
    EXPECT_EQ(file.view()[11], 0);
    scratch_file other = std::move(file);
    EXPECT_EQ(other.view()[1], 7);
    EXPECT_EQ(directory.entries(), 0);
}

TEST(scratch_file, names_the_directory_where_it_cannot_be) {
    EXPECT_TRUE(contains(failure_message([] { scratch_file const file("/nowhere"); }),
                         "/nowhere: no temporary file can be created there"));
}

TEST(scratch_file, says_before_it_is_written_that_there_is_no_room) {
    temporary_directory const directory;
    scratch_file file(directory.path());
    EXPECT_TRUE(contains(failure_message([&] { file.resize(std::uint64_t{1} << 60); }), directory.path().string()));
}

} // namespace
} // namespace detent::io
