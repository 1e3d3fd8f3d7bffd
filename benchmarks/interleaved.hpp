// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <Eigen/Core>
#include <benchmark/benchmark.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

/// Seconds that `f` takes.
template <class F> double seconds(F const& f) {
    auto const start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> v) {
    std::ranges::nth_element(v, v.begin() + std::ssize(v) / 2);
    return v[v.size() / 2];
}

/// Reads memory from four places at once: one is slower.
inline void read_memory(std::uint64_t const* words, std::ptrdiff_t n) {
    std::ptrdiff_t const quarter = n / 4;
    std::uint64_t sum = 0;
    for (std::ptrdiff_t i = 0; i < quarter; ++i) {
        sum += words[i] + words[i + quarter] + words[i + 2 * quarter] + words[i + 3 * quarter];
    }
    benchmark::DoNotOptimize(sum);
}

/// Flops per second of Eigen's product of square matrices, on as many threads as OpenMP has.
template <class Scalar> double product_rate() {
    constexpr int n = 2048;
    using square = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic>;
    static square const a = square::Random(n, n);
    static square b = a;
    return 2.0 * n * n * n / seconds([] {
               b.noalias() = a * a;
               benchmark::DoNotOptimize(b.data());
           });
}

/// Runs `ours` and `theirs` in turns and sets the counters `speedup`, the median over turns of their ratio, and
/// `GFLOP/s` of each at its median, for work of `flops`.
template <class Ours, class Theirs>
void compare(benchmark::State& state, double flops, Ours const& ours, Theirs const& theirs) {
    std::vector<double> our_times;
    std::vector<double> their_times;
    std::vector<double> ratios;
    for (auto _ : state) {
        our_times.push_back(seconds(ours));
        their_times.push_back(seconds(theirs));
        ratios.push_back(their_times.back() / our_times.back());
        state.SetIterationTime(our_times.back());
    }
    state.counters["speedup"] = median(ratios);
    state.counters["GFLOP/s"] = flops / median(our_times) / 1e9;
    state.counters["other GFLOP/s"] = flops / median(their_times) / 1e9;
}

/// What `main` of a benchmark of large matrices does: keeps the pages of memory instead of returning them to the system
/// each time, as the program does.
inline void run_benchmarks(int argc, char** argv) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
}
