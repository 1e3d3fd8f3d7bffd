// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <numeric>
#include <string_view>
#include <thread>
#include <utility>

#include "detent/core/abi.hpp"

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
    double total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }

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
        enter(now_);
        return std::exchange(times_, {});
    }

    /// While it lives, time counts as `kind`. Without a stopwatch it does nothing, nor in other threads than the
    /// stopwatch's: those work in loops that are counted already.
    class section {
    public:
        section(stopwatch* watch, work_kind kind)
            : watch_(watch != nullptr && watch->owner_ == std::this_thread::get_id() ? watch : nullptr) {
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
    using clock = std::chrono::steady_clock;

    /// From now on time counts as `kind`; answers what it counted as before.
    work_kind enter(work_kind kind) {
        auto const time = clock::now();
        times_[now_] += std::chrono::duration<double>(time - since_).count();
        since_ = time;
        return std::exchange(now_, kind);
    }

    std::thread::id owner_ = std::this_thread::get_id();
    clock::time_point since_ = clock::now();
    work_kind now_ = work_kind::other;
    work_times times_;
};

} // namespace detent::inline DETENT_ABI
