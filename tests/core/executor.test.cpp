// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "detent/core/executor.hpp"
#include "io/failure_message.hpp"

namespace {

using detent::executor_ref;
using detent::index_t;

void expect_each_once(executor_ref executor) {
    for (index_t const n : {0, 1, 2, 3, 100}) {
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
        executor.for_each(n, [&](index_t i) { ++calls[static_cast<std::size_t>(i)]; });
        EXPECT_TRUE(std::all_of(calls.begin(), calls.end(), [](auto const& c) { return c == 1; })) << n;
    }
}

void expect_exception_reaches_caller(executor_ref executor) {
    auto const fail_at_3 = [](index_t i) {
        if (i == 3) {
            throw std::runtime_error("three");
        }
    };
    try {
        executor.for_each(10, fail_at_3);
        FAIL() << "nothing was thrown";
    } catch (std::runtime_error const& e) {
        EXPECT_EQ(std::string(e.what()), "three");
    }
    expect_each_once(executor); // and the executor still works
}

/// Every iteration fails, and the caller sees one failure.
void expect_one_exception_of_many(executor_ref executor) {
    auto const fail = [](index_t i) { throw std::out_of_range(std::to_string(i)); };
    EXPECT_THROW(executor.for_each(50, fail), std::out_of_range);
}

/// A sum whose rounding depends on how it is cut.
float sum_of_pieces(executor_ref executor, index_t grain) {
    index_t const n = 10007;
    std::vector<float> sums(static_cast<std::size_t>(detent::ceil_div(n, grain)));
    executor.for_pieces(n, grain, [&](index_t begin, index_t end) {
        float sum = 0;
        for (index_t i = begin; i < end; ++i) {
            sum += std::sin(static_cast<float>(i)) * 1e3F;
        }
        sums[static_cast<std::size_t>(begin / grain)] = sum;
    });
    float total = 0;
    for (float const s : sums) {
        total += s;
    }
    return total;
}

TEST(serial, runs_in_order) {
    std::vector<index_t> seen;
    detent::serial::for_each(4, [&](index_t i) { seen.push_back(i); });
    EXPECT_EQ(seen, (std::vector<index_t>{0, 1, 2, 3}));
    expect_each_once({});
    expect_exception_reaches_caller({});
}

TEST(executor_ref, is_serial_by_default) { EXPECT_EQ(executor_ref().workers(), 1); }

TEST(executor_ref, takes_any_executor) {
    struct backwards {
        index_t calls = 0;
        static index_t workers() { return 3; }
        void for_each(index_t n, detent::function_ref<void(index_t)> f) {
            ++calls;
            while (n-- > 0) {
                f(n);
            }
        }
    };
    static_assert(detent::Executor<backwards>);
    backwards pool;
    executor_ref const executor = pool;
    EXPECT_EQ(executor.workers(), 3);
    expect_each_once(executor);
    EXPECT_EQ(pool.calls, 5);
    EXPECT_EQ(sum_of_pieces(executor, 64), sum_of_pieces({}, 64));
}

struct pool_without_threads {
    static detent::index_t workers() { return 0; }
    static void for_each(detent::index_t n, detent::function_ref<void(detent::index_t)> f) {
        detent::serial::for_each(n, f);
    }
};

TEST(executor_ref, needs_a_worker) {
    pool_without_threads pool;
    EXPECT_EQ(failure_message([&] { detent::executor_ref const unused(pool); }),
              "executor: its number of workers is 0, not positive");
}

TEST(executor_ref, pieces_cover_the_range_and_do_not_overlap) {
    for (index_t const n : {0, 1, 9, 10, 11, 20}) {
        std::vector<std::pair<index_t, index_t>> pieces;
        executor_ref().for_pieces(n, 10, [&](index_t begin, index_t end) { pieces.emplace_back(begin, end); });
        index_t reached = 0;
        for (auto const& [begin, end] : pieces) {
            EXPECT_EQ(begin, reached);
            EXPECT_GT(end, begin);
            EXPECT_LE(end - begin, 10);
            reached = end;
        }
        EXPECT_EQ(reached, n);
    }
}

#if defined(_OPENMP)

TEST(threads, run_each_once) {
    for (index_t const count : {1, 2, 3, 8}) {
        detent::thread_team const pool(count);
        EXPECT_EQ(pool.workers(), count);
        expect_each_once(pool);
    }
}

TEST(threads, are_not_fewer_than_one) {
    EXPECT_EQ(failure_message([] { detent::thread_team(0); }), "thread_team: its number of threads is 0, not positive");
    EXPECT_EQ(failure_message([] { detent::thread_team(-1); }),
              "thread_team: its number of threads is -1, not positive");
}

TEST(threads, pass_an_exception_to_the_caller) {
    detent::thread_team const pool(4);
    expect_exception_reaches_caller(pool);
    expect_one_exception_of_many(pool);
}

TEST(threads, do_not_change_the_number_of_threads_outside) {
    int const before = omp_get_max_threads();
    detent::thread_team(3).for_each(8, [](index_t) { EXPECT_EQ(omp_get_max_threads(), 1); });
    EXPECT_EQ(omp_get_max_threads(), before);
}

TEST(threads, give_the_same_bits_for_any_count) {
    float const expected = sum_of_pieces({}, 64);
    ASSERT_NE(expected, sum_of_pieces({}, 1000)) << "the sum must be one that rounds";
    for (index_t const count : {1, 2, 3, 7}) {
        detent::thread_team const pool(count);
        EXPECT_EQ(sum_of_pieces(pool, 64), expected) << count;
    }
}

TEST(executor, gives_each_worker_a_state_for_its_pieces) {
    for (index_t const n : {0, 1, 7, 100}) {
        detent::thread_team executor(3);
        for (executor_ref const any : {executor_ref(), executor_ref(executor)}) {
            std::vector<int> visits(static_cast<std::size_t>(n));
            std::atomic<int> made = 0;
            any.for_pieces(
                n, 10, [&] { return ++made; },
                [&](int& state, index_t begin, index_t end) {
                    EXPECT_GT(state, 0);
                    EXPECT_LE(end - begin, 10);
                    for (index_t i = begin; i < end; ++i) {
                        ++visits[static_cast<std::size_t>(i)];
                    }
                });
            EXPECT_EQ(visits, std::vector<int>(static_cast<std::size_t>(n), 1));
            EXPECT_LE(made, any.workers());
        }
    }
}
#endif

} // namespace
