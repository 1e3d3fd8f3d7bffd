// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>

#include "detent/core/error.hpp"
#include "detent/core/function_ref.hpp"
#include "detent/core/index.hpp"
#include "detent/core/stopwatch.hpp"
#include "detent/core/workspace.hpp"

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace detent::inline DETENT_ABI {

/// Where loops run: `for_each(n, f)` calls `f(0) .. f(n - 1)` in any order, on up to `workers()` threads, and returns
/// when all are done. An exception of `f` reaches the caller.
template <class E>
concept Executor = requires(E& e, index_t n, function_ref<void(index_t)> f) {
    { e.workers() } -> std::convertible_to<index_t>;
    e.for_each(n, f);
};

#if defined(_OPENMP)
/// While it lives, OpenMP gives the calling thread no others: products of Eigen then stay in their thread, and their
/// rounding cannot depend on the number of threads.
class one_thread {
public:
    one_thread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
    ~one_thread() { omp_set_num_threads(before_); }
    one_thread(one_thread const&) = delete;
    one_thread& operator=(one_thread const&) = delete;

private:
    int before_;
};
#else
struct one_thread {};
#endif

/// Runs a loop in the calling thread.
struct serial {
    static constexpr index_t workers() { return 1; }
    static void for_each(index_t n, function_ref<void(index_t)> f) {
        [[maybe_unused]] one_thread const guard{};
        for (index_t i = 0; i < n; ++i) {
            f(i);
        }
    }
};

/// Refers to any `Executor`, so that functions which take one need not be templates.
class executor_ref {
public:
    executor_ref() : executor_ref(shared_serial) {}
    /// @throws error when it has no workers, as it would then run nothing.
    template <Executor E>
        requires(!std::same_as<std::remove_const_t<E>, executor_ref>)
    executor_ref(E& executor) // NOLINT: implicit on purpose, an argument type
        : executor_(const_cast<void*>(static_cast<void const*>(&executor))), workers_(executor.workers()),
          for_each_([](void* e, index_t n, function_ref<void(index_t)> f) { static_cast<E*>(e)->for_each(n, f); }) {
        expect_option(workers_ > 0, "executor", "number of workers", workers_, "positive");
    }

    index_t workers() const { return workers_; }
    void for_each(index_t n, function_ref<void(index_t)> f) const { for_each_(executor_, n, f); }

    /// The same executor for work whose time `watch` counts; `watch` must live as long as the reference.
    executor_ref timed_by(stopwatch& watch) const {
        executor_ref timed = *this;
        timed.watch_ = &watch;
        return timed;
    }
    /// What counts the time of the work, or null; made for `stopwatch::section`.
    stopwatch* watch() const { return watch_; }

    /// This executor for work that takes memory from `from`, which must live as long as the reference and serves
    /// one call at a time. Without one, calls allocate what they need and give it back.
    executor_ref with_memory(workspace& from) const { return with_memory(&from.held_); }
    executor_ref with_memory(compiled::memory* from) const {
        executor_ref other = *this;
        other.memory_ = from;
        return other;
    }
    /// Where memory comes from, or null; made for `scratch`.
    compiled::memory* memory() const { return memory_; }

    /// Cuts `[0, n)` into pieces of at most `grain` and calls `f(begin, end)` for each. The pieces do not depend on the
    /// number of workers, so neither do results that are computed piece by piece.
    template <class F> void for_pieces(index_t n, index_t grain, F const& f) const {
        for_each(ceil_div(n, grain), [&](index_t piece) { f(piece * grain, std::min(n, (piece + 1) * grain)); });
    }

    /// The same with a state, such as a workspace, that `make()` gives to each worker for all its pieces: calls
    /// `f(state, begin, end)`.
    template <class Make, class F> void for_pieces(index_t n, index_t grain, Make const& make, F const& f) const {
        index_t const pieces = ceil_div(n, grain);
        std::atomic<index_t> next = 0;
        for_each(std::min(workers(), pieces), [&](index_t) {
            auto state = make();
            for (index_t piece = next++; piece < pieces; piece = next++) {
                f(state, piece * grain, std::min(n, (piece + 1) * grain));
            }
        });
    }

private:
    static inline serial shared_serial;

    void* executor_;
    index_t workers_;
    void (*for_each_)(void*, index_t, function_ref<void(index_t)>);
    stopwatch* watch_ = nullptr;
    compiled::memory* memory_ = nullptr;
};

/// Memory of one call, from the workspace of its executor or, without one, from its own: what was taken goes back when
/// the scratch is destroyed. Only the thread that made it may take from it; parts may be given to other threads.
class scratch {
public:
    explicit scratch(executor_ref const& executor)
        : from_(executor.memory() != nullptr ? *executor.memory() : own_.held_), before_(from_) {}
    scratch(scratch const&) = delete;
    scratch& operator=(scratch const&) = delete;
    ~scratch() {
        from_.current = before_.current;
        from_.used = before_.used;
    }

    /// Memory for `n` objects, of no particular contents, aligned to a cache line.
    template <class T> T* take(index_t n) {
        return reinterpret_cast<T*>(workspace::take(from_, n * static_cast<index_t>(sizeof(T))));
    }

private:
    workspace own_;
    compiled::memory& from_;
    compiled::memory const before_; // but for `first`
};

} // namespace detent::inline DETENT_ABI
