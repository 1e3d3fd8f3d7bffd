// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>

#include "detent/core/abi.hpp"

// Everybody includes this, and <chrono> is large.
#if defined(__unix__) || defined(__APPLE__)
#include <ctime>
#else
#include <chrono>
#endif

namespace detent::inline DETENT_ABI {

/// The kinds of work whose time is told apart. `products` are those of linear layers, float or packed, and of the
/// output head; `attention` is scores, softmax and contexts, which are one loop; `rounding` is that of activations, and
/// of weights while their ranges are learned; `other` is what no section claims.
enum class work_kind : std::size_t { products, attention, rounding, hessians, solving, layer_errors, other };

/// The names of all kinds of work, in the order of `work_kind`.
inline constexpr std::array<std::string_view, 7> work_names{"products", "attention",    "rounding", "Hessians",
                                                            "solving",  "layer errors", "other"};

/// Seconds spent on each kind of work.
struct work_times {
    std::array<double, work_names.size()> seconds{};

    double operator[](work_kind kind) const { return seconds[static_cast<std::size_t>(kind)]; }
    double& operator[](work_kind kind) { return seconds[static_cast<std::size_t>(kind)]; }
    double total() const {
        double sum = 0;
        for (double const s : seconds) {
            sum += s;
        }
        return sum;
    }

    work_times& operator+=(work_times const& more) {
        for (std::size_t i = 0; i < seconds.size(); ++i) {
            seconds[i] += more.seconds[i];
        }
        return *this;
    }
};

/// Tells what the wall time of the thread that made it goes to. Every moment counts for one kind of work: that of the
/// innermost `section`, or `other`. It reaches the library with an executor, see `executor_ref::timed_by`.
class stopwatch {
public:
    stopwatch() = default;
    stopwatch(stopwatch const&) = delete; // sections point to it
    stopwatch& operator=(stopwatch const&) = delete;

    /// The times since the last lap, or since the start.
    work_times lap() {
        enter(kind_);
        return std::exchange(times_, {});
    }

    /// While it lives, time counts as `kind`. Without a stopwatch it does nothing, nor in other threads than the
    /// stopwatch's: those work in loops that are counted already.
    class section {
    public:
        section(stopwatch* watch, work_kind kind)
            : watch_(watch != nullptr && watch->owner_ == this_thread() ? watch : nullptr) {
            if (watch_ != nullptr) {
                before_ = watch_->enter(kind);
            }
        }
        ~section() {
            if (watch_ != nullptr) {
                watch_->enter(before_);
            }
        }
        section(section const&) = delete;
        section& operator=(section const&) = delete;

    private:
        stopwatch* watch_;
        work_kind before_ = work_kind::other;
    };

private:
    /// Nanoseconds of a clock that is never set.
    static std::int64_t now() {
#if defined(__unix__) || defined(__APPLE__)
        std::timespec time{};
        ::clock_gettime(CLOCK_MONOTONIC, &time);
        return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
#else
        return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
    }

    /// An address that no other running thread has.
    static void const* this_thread() {
        static thread_local char const here = 0;
        return &here;
    }

    /// From now on time counts as `kind`; answers what it counted as before.
    work_kind enter(work_kind kind) {
        std::int64_t const time = now();
        times_[kind_] += 1e-9 * static_cast<double>(time - since_);
        since_ = time;
        return std::exchange(kind_, kind);
    }

    void const* owner_ = this_thread();
    std::int64_t since_ = now();
    work_kind kind_ = work_kind::other;
    work_times times_;
};

} // namespace detent::inline DETENT_ABI
