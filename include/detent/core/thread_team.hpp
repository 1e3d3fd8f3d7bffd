// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "detent/core/error.hpp"
#include "detent/core/executor.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/index.hpp"

namespace detent::inline DETENT_ABI {

/// Runs loops on threads of its own and the calling one. A loop never waits for a thread that has not begun with it:
/// where the processors are busy with other programs, the threads that run do all of it. For one loop at a time; a loop
/// inside of another, or beside one that a second thread began, runs in its calling thread.
class thread_team {
public:
    /// `count` threads, the calling one among them; by default one for each processor that the program may use. There
    /// are fewer where the system gives no more. @throws error when `count` is not positive.
    explicit thread_team(index_t count = processors()) {
        expect_option(count > 0, "thread_team", "number of threads", count, "positive");
        threads_.reserve(static_cast<std::size_t>(count - 1));
        for (index_t i = 1; i < count && start_thread(); ++i) {}
    }

    /// Ends its threads; no loop runs.
    ~thread_team() {
        stops_.store(true);
        loop_.fetch_add(2);
        loop_.notify_all();
        for (auto& thread : threads_) {
            thread.join();
        }
    }

    thread_team(thread_team const&) = delete;
    thread_team& operator=(thread_team const&) = delete;

    /// The number of processors that the program may use.
    static index_t processors() { return std::max<index_t>(1, std::thread::hardware_concurrency()); }

    index_t workers() const { return static_cast<index_t>(threads_.size()) + 1; }

    void for_each(index_t n, function_ref<void(index_t)> f) {
        if (n < 2 || threads_.empty() || busy_.test_and_set(std::memory_order_acquire)) {
            return serial::for_each(n, f);
        }
        [[maybe_unused]] one_thread const guard{};
        failed_.clear(std::memory_order_relaxed);
        body_ = &f;
        size_ = n;
        next_.store(0, std::memory_order_relaxed);
        loop_.fetch_add(1); // odd: it may be entered
        for (index_t i = 1; i < std::min(n, workers()); ++i) {
            loop_.notify_one();
        }
        run();
        loop_.fetch_add(1);
        while (int const inside = wait(inside_, [](int value) { return value == 0; })) {
            inside_.wait(inside);
        }
        auto const failure = std::exchange(failure_, {});
        busy_.clear(std::memory_order_release);
        rethrow(failure);
    }

private:
#if defined(__cpp_exceptions)
    using exception = std::exception_ptr;
    static void rethrow(exception const& thrown) {
        if (thrown) {
            std::rethrow_exception(thrown);
        }
    }
#else
    struct exception {};
    static void rethrow(exception) {}
#endif

    /// Looks at `value` for as long as a loop that comes soon is worth, until it is what `is_awaited` says; answers
    /// what it was last.
    template <class IsAwaited> static int wait(std::atomic<int> const& value, IsAwaited const& is_awaited) {
        constexpr int looks = 2000; // some microseconds: a thread that sleeps needs as long to wake up
        int now = value.load();
        for (int i = 0; i < looks && !is_awaited(now); ++i) {
            relax();
            now = value.load(std::memory_order_acquire);
        }
        return now;
    }

    /// Leaves the other thread of a core some time.
    static void relax() {
#if defined(__x86_64__) && defined(__GNUC__)
        __builtin_ia32_pause();
#endif
    }

    bool start_thread() {
#if defined(__cpp_exceptions)
        try {
            threads_.emplace_back([this] { serve(); });
        } catch (std::system_error const&) {
            return false;
        }
#else
        threads_.emplace_back([this] { serve(); });
#endif
        return true;
    }

    /// What each thread does: joins loops until the team is destroyed.
    void serve() {
        [[maybe_unused]] one_thread const guard{};
        int seen = 0;
        for (;;) {
            int const now = wait(loop_, [&](int value) { return value != seen; });
            if (now == seen) {
                loop_.wait(seen);
                continue;
            }
            seen = now;
            // Either the caller sees that somebody is inside, or the thread that its loop has ended.
            inside_.fetch_add(1);
            if (loop_.load() % 2 != 0) {
                run();
            }
            if (inside_.fetch_sub(1) == 1) {
                inside_.notify_one();
            }
            if (stops_.load()) {
                return;
            }
        }
    }

    /// Takes what is left of the loop, one call after the other.
    void run() {
        for (index_t i = next_++; i < size_; i = next_++) {
#if defined(__cpp_exceptions)
            try {
                (*body_)(i);
            } catch (...) {
                if (!failed_.test_and_set()) {
                    failure_ = std::current_exception();
                }
            }
#else
            (*body_)(i);
#endif
        }
    }

    std::vector<std::thread> threads_;
    std::atomic<bool> stops_ = false;
    std::atomic_flag busy_;
    alignas(64) std::atomic<int> loop_ = 0;   // grows when a loop begins and when it ends
    alignas(64) std::atomic<int> inside_ = 0; // threads, without the caller
    alignas(64) std::atomic<index_t> next_ = 0;
    index_t size_ = 0;
    function_ref<void(index_t)> const* body_ = nullptr;
    std::atomic_flag failed_;
    exception failure_; // the first one
};

} // namespace detent::inline DETENT_ABI
