// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <chrono>
#include <cstddef>
#include <thread>

#include <gtest/gtest.h>

#include "detent/core/executor.hpp"
#include "detent/core/stopwatch.hpp"

namespace detent {
namespace {

using clock_type = std::chrono::steady_clock;

double seconds_since(clock_type::time_point start) {
    return std::chrono::duration<double>(clock_type::now() - start).count();
}

/// Takes a little time and says how much: what a clock read around it finds is never less.
double spend() {
    auto const start = clock_type::now();
    double seconds = 0;
    while (seconds < 1e-4) {
        seconds = seconds_since(start);
    }
    return seconds;
}

TEST(stopwatch, time_counts_for_the_innermost_section) {
    auto const start = clock_type::now();
    stopwatch watch;
    double other = spend();
    double products = 0;
    double attention = 0;
    {
        stopwatch::section const outer(&watch, work_kind::products);
        products += spend();
        {
            stopwatch::section const inner(&watch, work_kind::attention);
            attention += spend();
        }
        products += spend();
    }
    other += spend();
    work_times const times = watch.lap();
    double const whole = seconds_since(start);

    double const rounding = 1e-9;
    EXPECT_GE(times[work_kind::other], other - rounding);
    EXPECT_GE(times[work_kind::products], products - rounding);
    EXPECT_GE(times[work_kind::attention], attention - rounding);
    EXPECT_EQ(times[work_kind::hessians], 0);
    EXPECT_EQ(times[work_kind::solving], 0);
    EXPECT_EQ(times[work_kind::layer_errors], 0);
    EXPECT_LE(times.total(), whole + rounding); // nothing counts twice
    EXPECT_LE(times[work_kind::attention], whole - products - other + rounding);
}

TEST(stopwatch, laps_follow_each_other) {
    stopwatch watch;
    stopwatch::section const timed(&watch, work_kind::solving);
    double const first = spend();
    work_times const one = watch.lap();
    double const second = spend(); // the section goes on
    work_times const two = watch.lap();
    EXPECT_GE(one[work_kind::solving], first - 1e-9);
    EXPECT_GE(two[work_kind::solving], second - 1e-9);
    EXPECT_EQ(two[work_kind::other], 0);

    work_times sum = one;
    sum += two;
    EXPECT_EQ(sum[work_kind::solving], one[work_kind::solving] + two[work_kind::solving]);
    EXPECT_EQ(sum[work_kind::other], one[work_kind::other] + two[work_kind::other]);
}

TEST(stopwatch, sections_of_other_threads_do_nothing) {
    stopwatch watch;
    std::thread([&] {
        stopwatch::section const timed(&watch, work_kind::hessians);
        spend();
    }).join();
    work_times const times = watch.lap();
    EXPECT_EQ(times[work_kind::hessians], 0);
    EXPECT_GE(times[work_kind::other], 1e-4 - 1e-9);
}

TEST(stopwatch, comes_with_an_executor) {
    EXPECT_EQ(executor_ref().watch(), nullptr);
    stopwatch watch;
    serial pool;
    executor_ref const plain(pool);
    executor_ref const timed = plain.timed_by(watch);
    EXPECT_EQ(plain.watch(), nullptr);
    EXPECT_EQ(timed.watch(), &watch);
    EXPECT_EQ(timed.workers(), 1);

    index_t calls = 0;
    timed.for_each(3, [&](index_t) { ++calls; });
    EXPECT_EQ(calls, 3);
    { stopwatch::section const nothing(plain.watch(), work_kind::products); }
    EXPECT_EQ(watch.lap()[work_kind::products], 0);
}

TEST(stopwatch, every_kind_of_work_has_a_name) {
    EXPECT_EQ(work_names.size(), static_cast<std::size_t>(work_kind::other) + 1);
    EXPECT_EQ(work_names[static_cast<std::size_t>(work_kind::other)], "other");
}

} // namespace
} // namespace detent
