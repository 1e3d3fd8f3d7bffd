// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "core/executors.hpp"
#include "detent/core/thread_team.hpp"
#include "io/failure_message.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace detent::test {
namespace {

TEST(thread_team, run_each_once) {
    for (index_t const count : {1, 2, 3, 8}) {
        thread_team pool(count);
        EXPECT_EQ(pool.workers(), count);
        expect_each_once(pool);
    }
}

TEST(thread_team, are_not_fewer_than_one) {
    EXPECT_EQ(failure_message([] { thread_team(0); }), "thread_team: its number of threads is 0, not positive");
    EXPECT_EQ(failure_message([] { thread_team(-1); }), "thread_team: its number of threads is -1, not positive");
}

TEST(thread_team, pass_an_exception_to_the_caller) {
    thread_team pool(4);
    expect_exception_reaches_caller(pool);
    expect_one_exception_of_many(pool);
}

#if defined(_OPENMP)
TEST(thread_team, do_not_change_the_number_of_threads_outside) {
    int const before = omp_get_max_threads();
    thread_team(3).for_each(8, [](index_t) { EXPECT_EQ(omp_get_max_threads(), 1); });
    EXPECT_EQ(omp_get_max_threads(), before);
}
#endif

TEST(thread_team, give_the_same_bits_for_any_count) {
    float const expected = sum_of_pieces({}, 64);
    ASSERT_NE(expected, sum_of_pieces({}, 1000)) << "the sum must be one that rounds";
    for (index_t const count : {1, 2, 3, 7}) {
        thread_team pool(count);
        EXPECT_EQ(sum_of_pieces(pool, 64), expected) << count;
    }
}

TEST(thread_team, runs_many_short_loops) {
    thread_team pool(3);
    for (index_t n = 0; n < 20000; ++n) {
        std::array<std::atomic<int>, 5> calls{};
        pool.for_each(n % 6, [&](index_t i) { ++calls.at(static_cast<std::size_t>(i)); });
        for (index_t i = 0; i < 5; ++i) {
            ASSERT_EQ(calls.at(static_cast<std::size_t>(i)), i < n % 6 ? 1 : 0) << n;
        }
    }
}

TEST(thread_team, runs_a_loop_in_a_loop) {
    thread_team pool(3);
    std::atomic<int> calls = 0;
    pool.for_each(8, [&](index_t) { pool.for_each(8, [&](index_t) { ++calls; }); });
    EXPECT_EQ(calls, 64);
}

TEST(thread_team, serves_several_threads) {
    thread_team pool(3);
    std::atomic<int> calls = 0;
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&] {
            for (int loop = 0; loop < 500; ++loop) {
                pool.for_each(7, [&](index_t) { ++calls; });
            }
        });
    }
    for (auto& caller : callers) {
        caller.join();
    }
    EXPECT_EQ(calls, 4 * 500 * 7);
}

TEST(thread_team, does_not_wait_for_threads_that_have_not_begun) {
    testing::GTEST_FLAG(death_test_style) = "fast"; // a child process has the calling thread alone
    thread_team pool(3);
    pool.for_each(3, [](index_t) {});
    auto const run = [&] {
        std::atomic<int> calls = 0;
        pool.for_each(100, [&](index_t) { ++calls; });
        std::_Exit(calls == 100 ? 0 : 1);
    };
    EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}

} // namespace
} // namespace detent::test
