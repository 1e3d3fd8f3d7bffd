// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <csignal>
#include <filesystem>
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detent/io/text_file.hpp"
#include "detent/io/work_directory.hpp"
#include "io/failure_message.hpp"
#include "io/temporary_directory.hpp"

namespace detent::io {
namespace {

namespace fs = std::filesystem;

class work_of : public testing::Test {
protected:
    fs::path target() const { return directory_ / "out"; }
    fs::path part() const { return directory_ / "out.part"; }

    /// Runs `f` in another process, which ends without any destructor.
    static void in_process(std::function<void()> const& f) {
        pid_t const child = ::fork();
        if (child == 0) {
            f();
            ::_exit(0);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_EQ(status, 0);
    }

    temporary_directory directory_;
};

TEST_F(work_of, a_result_appears_when_it_is_committed) {
    {
        work_directory work(target());
        write_text(work.result() / "a", "1");
        EXPECT_FALSE(fs::exists(target()));
        work.commit();
        EXPECT_EQ(read_text(target() / "a"), "1");
        EXPECT_FALSE(fs::exists(part()));
    }
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(work_of, a_result_takes_the_place_of_the_old_one_and_keeps_other_files) {
    fs::create_directories(target() / "mine");
    write_text(target() / "mine" / "x", "x");
    write_text(target() / "a", "old");
    write_text(target() / "weights", "old");
    write_text(target() / "notes", "notes");
    write_text(target() / "x.tmp", "x");
    write_text(target() / ".detent-1-0.tmp", "unfinished");
    fs::create_symlink("notes", target() / "link");
    fs::create_symlink("mine", target() / "other");
    work_directory work(target());
    write_text(work.result() / "a", "new");
    EXPECT_EQ(read_text(target() / "a"), "old");
    work.commit({"weights"});
    EXPECT_EQ(read_text(target() / "a"), "new");
    EXPECT_EQ(read_text(target() / "link"), "notes");
    EXPECT_EQ(read_text(target() / "mine" / "x"), "x");
    EXPECT_EQ(read_text(target() / "other" / "x"), "x");
    EXPECT_EQ(read_text(target() / "x.tmp"), "x");
    EXPECT_FALSE(fs::exists(target() / "weights"));
    EXPECT_FALSE(fs::exists(target() / ".detent-1-0.tmp"));
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(work_of, nothing_is_left_of_a_result_that_is_not_committed) {
    fs::create_directories(target());
    write_text(target() / "a", "old");
    {
        work_directory work(target());
        write_text(work.result() / "a", "new");
    }
    EXPECT_EQ(read_text(target() / "a"), "old");
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(work_of, what_is_kept_for_the_next_program_stays) {
    {
        work_directory work(target());
        write_text(work.path() / "kept", "1");
        write_text(work.result() / "a", "unfinished");
    }
    EXPECT_EQ(read_text(part() / "kept"), "1");
    EXPECT_FALSE(fs::exists(part() / "result"));
    work_directory work(target());
    write_text(work.result() / "a", "1");
    work.commit();
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(work_of, leftovers_of_a_program_that_was_stopped_are_removed) {
    in_process([&] {
        auto* const work = new work_directory(target());
        write_text(work->result() / "a", "unfinished");
    });
    EXPECT_TRUE(fs::exists(part() / "result" / "a"));
    { work_directory const work(target()); }
    EXPECT_EQ(directory_.entries(), 0);
}

TEST_F(work_of, a_program_stopped_between_two_directories_is_made_good) {
    // The old target was moved away and the new one not put there: as where the system exchanges no directories.
    fs::create_directories(part() / "old");
    fs::create_directories(part() / "result");
    write_text(part() / "old" / "a", "old");
    { work_directory const work(target()); }
    EXPECT_EQ(read_text(target() / "a"), "old");
    EXPECT_EQ(directory_.entries(), 1);
    // The new one is there, and what was in the old one is not in it yet.
    fs::create_directories(part() / "result" / "mine");
    write_text(part() / "result" / "mine" / "x", "x");
    { work_directory const work(target()); }
    EXPECT_EQ(read_text(target() / "mine" / "x"), "x");
    EXPECT_EQ(directory_.entries(), 1);
}

TEST_F(work_of, a_second_program_is_told) {
    work_directory const work(target());
    EXPECT_TRUE(contains(failure_message([&] { work_directory const second(target()); }),
                         "out: another program is writing it, in "));
}

TEST_F(work_of, names_what_is_in_the_way) {
    write_text(target(), "a file");
    EXPECT_TRUE(contains(failure_message([&] { work_directory const work(target()); }), "is not a directory"));
    EXPECT_TRUE(contains(failure_message([&] { work_directory const work(target() / "below"); }), "out"));
}

} // namespace
} // namespace detent::io
