// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Loops of 16 pieces on two threads, in turns with the same loops on one thread and in a parallel region of OpenMP,
// while so many other processes (the first argument) keep processors busy. The second is the work of a piece:
//   core_thread_team_bench
#include <chrono>
#include <cmath>
#include <csignal>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include "detent/core/executor.hpp"
#include "detent/core/thread_team.hpp"
#include "interleaved.hpp"

namespace {

using detent::index_t;

constexpr index_t pieces = 16;

void work(index_t steps) {
    float x = 1;
    for (index_t i = 0; i < steps; ++i) {
        x = std::sqrt(x + static_cast<float>(i));
    }
    benchmark::DoNotOptimize(x);
}

/// Processes that do nothing but keep processors busy.
class busy_processes {
public:
    explicit busy_processes(index_t count) {
        for (index_t i = 0; i < count; ++i) {
            pid_t const id = fork();
            if (id == 0) {
                for (;;) {
                    work(1000);
                }
            }
            ids_.push_back(id);
        }
    }
    ~busy_processes() {
        for (pid_t const id : ids_) {
            kill(id, SIGKILL);
            waitpid(id, nullptr, 0);
        }
    }
    busy_processes(busy_processes const&) = delete;
    busy_processes& operator=(busy_processes const&) = delete;

private:
    std::vector<pid_t> ids_;
};

void loops(benchmark::State& state) {
    busy_processes const others(state.range(0));
    index_t const steps = state.range(1);
    index_t const repetitions = 4'000'000 / (steps * pieces) + 1;
    detent::thread_team team(2);
    auto const on = [&](detent::executor_ref executor) {
        for (index_t r = 0; r < repetitions; ++r) {
            executor.for_each(pieces, [&](index_t) { work(steps); });
        }
    };
    auto const timed = [](auto const& f) {
        std::this_thread::sleep_for(std::chrono::milliseconds(30)); // threads of OpenMP run on without work for a while
        return seconds(f);
    };
    std::vector<double> alone, ours, theirs;
    for (auto _ : state) {
        ours.push_back(timed([&] { on(team); }));
        alone.push_back(timed([&] { on({}); }));
        theirs.push_back(timed([&] {
            for (index_t r = 0; r < repetitions; ++r) {
#pragma omp parallel for num_threads(2) schedule(dynamic, 1)
                for (index_t i = 0; i < pieces; ++i) {
                    work(steps);
                }
            }
        }));
        state.SetIterationTime(ours.back());
    }
    state.counters["us a loop"] = median(ours) / static_cast<double>(repetitions) * 1e6;
    state.counters["one thread"] = median(alone) / median(ours);
    state.counters["OpenMP"] = median(theirs) / median(ours);
}
BENCHMARK(loops)
    ->ArgNames({"busy", "steps"})
    ->ArgsProduct({{0, 2}, {100, 1000, 10000}})
    ->UseManualTime()
    ->Iterations(11)
    ->Unit(benchmark::kMillisecond);

} // namespace

BENCHMARK_MAIN();
