// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "detent/io/atomic_file.hpp"
#include "detent/io/text_file.hpp"
#include "failure_message.hpp"
#include "temporary_directory.hpp"

namespace {

using detent::io::atomic_file;
using detent::io::read_text;
using detent::io::write_text;

TEST(atomic_file, appears_only_at_commit) {
    temporary_directory const directory;
    auto const path = directory / "a";
    atomic_file file(path);
    file.write("some ");
    file.write(std::vector<std::uint8_t>{'t', 'e', 'x', 't'});
    file.close();
    EXPECT_FALSE(std::filesystem::exists(path));
    file.commit();
    EXPECT_EQ(read_text(path), "some text");
    EXPECT_EQ(directory.entries(), 1);
}

TEST(atomic_file, without_commit_leaves_the_target_alone) {
    temporary_directory const directory;
    auto const path = directory / "a";
    { atomic_file(path).write("lost"); }
    EXPECT_EQ(directory.entries(), 0);
    write_text(path, "old");
    { atomic_file(path).write("lost"); }
    EXPECT_EQ(read_text(path), "old");
    EXPECT_EQ(directory.entries(), 1);
}

TEST(atomic_file, several_at_once_and_moved) {
    temporary_directory const directory;
    std::vector<atomic_file> files;
    for (std::string const name : {"a", "b", "c"}) {
        files.emplace_back(directory / name).write(name);
    }
    files[2] = std::move(files[1]);
    files.erase(files.begin() + 1); // drops "c", whose temporary moved here
    for (auto& file : files) {
        file.commit();
    }
    EXPECT_EQ(read_text(directory / "a"), "a");
    EXPECT_EQ(read_text(directory / "b"), "b");
    EXPECT_EQ(directory.entries(), 2);
}

TEST(atomic_file, leaves_nothing_when_the_program_is_killed) {
    temporary_directory const directory;
    {
        atomic_file const probe(directory / "a");
        if (directory.entries() > 0) {
            GTEST_SKIP() << "no files without names here";
        }
    }
    for (bool const replaces : {false, true}) {
        if (replaces) {
            write_text(directory / "a", "old");
        }
        EXPECT_EXIT(
            {
                atomic_file file(directory / "a");
                file.write("text");
                file.close();
                std::raise(SIGKILL);
            },
            ::testing::KilledBySignal(SIGKILL), "");
        EXPECT_EQ(directory.entries(), replaces ? 1 : 0);
    }
    write_text(directory / "a", "new");
    EXPECT_EQ(read_text(directory / "a"), "new");
    EXPECT_EQ(directory.entries(), 1);
}

TEST(atomic_file, has_ordinary_permissions) {
    temporary_directory const directory;
    auto const mask = ::umask(022);
    write_text(directory / "a", "text");
    ::umask(mask);
    EXPECT_EQ(static_cast<unsigned>(std::filesystem::status(directory / "a").permissions()), 0644U);
}

TEST(atomic_file, refuses_impossible_targets) {
    temporary_directory const directory;
    auto const message = [](std::filesystem::path const& path) {
        return failure_message([&] { atomic_file const file(path); });
    };
    auto const nowhere = directory.path() / "missing" / "a";
    EXPECT_EQ(message(nowhere), nowhere.string() + ": cannot be created: No such file or directory");
    EXPECT_EQ(message(directory.path()), directory.path().string() + ": exists and is not a regular file");
    EXPECT_EQ(message("/dev/null"), "/dev/null: exists and is not a regular file");
    EXPECT_EQ(directory.entries(), 0);
}

TEST(atomic_file, failed_commit_removes_the_temporary) {
    temporary_directory const directory;
    auto const path = directory / "a";
    EXPECT_TRUE(contains(failure_message([&] {
                             atomic_file file(path);
                             file.write("text");
                             std::filesystem::create_directory(path);
                             file.commit();
                         }),
                         path.string() + ": cannot be replaced"));
    EXPECT_TRUE(std::filesystem::is_directory(path));
    EXPECT_EQ(directory.entries(), 1);
}

// A limit on file sizes stands for a full disk: write() stores a part, then fails.
TEST(atomic_file, failed_write_keeps_the_old_file) {
    temporary_directory const directory;
    auto const path = directory / "a";
    write_text(path, "old");
    ::rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    auto const handler = std::signal(SIGXFSZ, SIG_IGN);
    ::rlimit small = before;
    small.rlim_cur = 1000;
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    auto const message = failure_message([&] { write_text(path, std::string(5000, 'x')); });
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    std::signal(SIGXFSZ, handler);
    EXPECT_EQ(message, path.string() + ": cannot be written: File too large");
    EXPECT_EQ(read_text(path), "old");
    EXPECT_EQ(directory.entries(), 1);
}

} // namespace
