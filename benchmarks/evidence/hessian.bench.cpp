// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Accumulating a Hessian, tokens in^2 flops, against the rate of Eigen's float product on as many threads as OpenMP
// has: add/<tokens>/<in>; `of product` is the share of that rate.

#include "detent/core/thread_team.hpp"
#include "detent/evidence/hessian.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

void add(benchmark::State& state) {
    matrix const x = matrix::Random(state.range(0), state.range(1));
    double const flops = static_cast<double>(state.range(0)) * static_cast<double>(state.range(1) * state.range(1));
    thread_team all;
    hessian h(state.range(1));
    std::vector<double> shares;
    for (auto _ : state) {
        double const before = product_rate<float>();
        double const time = seconds([&] { h.add(x, all); });
        shares.push_back(flops / time / (0.5 * (before + product_rate<float>())));
        state.SetIterationTime(time);
    }
    state.counters["of product"] = median(shares);
    state.counters["float product"] = product_rate<float>() / 1e9;
}

} // namespace

BENCHMARK(add)
    ->Args({4096, 1024})
    ->Args({4096, 4096})
    ->Args({2048, 11008})
    ->UseManualTime()
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_MAIN();
