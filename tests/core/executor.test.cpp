// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#include <algorithm>
#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/executors.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "io/failure_message.hpp"

namespace {

using detent::executor_ref;
using detent::index_t;
using detent::test::expect_each_once;
using detent::test::expect_exception_reaches_caller;
using detent::test::expect_one_exception_of_many;
using detent::test::sum_of_pieces;

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

} // namespace
