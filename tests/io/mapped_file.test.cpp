// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <fstream>
#include <string>
#include <type_traits>
#include <utility>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "detent/io/mapped_file.hpp"
#include "failure_message.hpp"
#include "temporary_directory.hpp"

namespace {

using detent::io::mapped_file;

static_assert(!std::is_copy_constructible_v<mapped_file> && !std::is_copy_assignable_v<mapped_file>);

std::string text_of(mapped_file const& file) { return {file.bytes().begin(), file.bytes().end()}; }

TEST(mapped_file, shows_the_bytes_of_the_file) {
    temporary_directory const directory;
    std::ofstream(directory / "a") << std::string("some\0\xFF", 6);
    mapped_file const file(directory / "a");
    EXPECT_EQ(file.path(), directory / "a");
    EXPECT_EQ(text_of(file), std::string("some\0\xFF", 6));
}

TEST(mapped_file, empty_file_has_no_bytes) {
    temporary_directory const directory;
    std::ofstream(directory / "empty").close();
    EXPECT_TRUE(mapped_file(directory / "empty").bytes().empty());
}

TEST(mapped_file, moving_keeps_the_mapping) {
    temporary_directory const directory;
    std::ofstream(directory / "a") << "first";
    std::ofstream(directory / "b") << "second";
    mapped_file a(directory / "a");
    auto const* const data = a.bytes().data();
    mapped_file moved(std::move(a));
    EXPECT_EQ(moved.bytes().data(), data);
    EXPECT_EQ(text_of(moved), "first");
    moved = mapped_file(directory / "b");
    EXPECT_EQ(text_of(moved), "second");
    EXPECT_EQ(moved.path(), directory / "b");
}

TEST(mapped_file, survives_replacement_of_the_file) {
    temporary_directory const directory;
    std::ofstream(directory / "a") << "old";
    mapped_file const file(directory / "a");
    std::ofstream(directory / "b") << "new";
    std::filesystem::rename(directory / "b", directory / "a");
    EXPECT_EQ(text_of(file), "old");
}

TEST(mapped_file, errors_name_the_file) {
    temporary_directory const directory;
    auto const message = [](std::filesystem::path const& path) {
        return failure_message([&] { mapped_file const file(path); });
    };
    auto const missing = directory / "missing";
    EXPECT_EQ(message(missing), missing.string() + ": cannot be opened: No such file or directory");
    EXPECT_EQ(message(directory.path()), directory.path().string() + ": is a directory");
    auto const pipe = directory / "pipe";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    EXPECT_EQ(message(pipe), pipe.string() + ": is not a regular file");
}

TEST(mapped_file, reads_pages_again_that_were_given_back) {
    temporary_directory const directory;
    std::string const text(100'000, 'x');
    std::ofstream(directory / "a") << text;
    mapped_file const file(directory / "a");
    EXPECT_EQ(text_of(file), text);
    file.release(file.bytes().subspan(5000, 50'000));
    file.release(file.bytes());
    EXPECT_EQ(text_of(file), text);
    std::vector<std::uint8_t> others(100'000, 7);
    EXPECT_FALSE(file.owns(others));
    file.release(others); // which are not of the file
    EXPECT_EQ(std::count(others.begin(), others.end(), 7), 100'000);
}

TEST(mapped_file, tells_when_the_file_has_changed) {
    temporary_directory const directory;
    auto const path = directory / "a";
    std::ofstream(path) << "first";
    mapped_file const file(path);
    auto const problem = [&] { return failure_message([&] { expect_stamp(path, file.stamp()); }); };
    EXPECT_EQ(problem(), "");
    std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
    EXPECT_EQ(problem(), path.string() + ": has changed since it was opened: it was written again");
    std::filesystem::resize_file(path, 2);
    EXPECT_EQ(problem(), path.string() + ": has changed since it was opened: it had 5 bytes and has 2");
    std::filesystem::remove(path);
    EXPECT_EQ(problem(), path.string() + ": cannot be examined: No such file or directory");
}

} // namespace
