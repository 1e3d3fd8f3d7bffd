// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What a call through the compiled kernels costs: the product of a matrix without rows, by the headers and by
// detent::kernels, where that is built.

#include "detent/kernel/multiply.hpp"

#include <benchmark/benchmark.h>

#include "detent/kernel/compiled.hpp"
#include "detent/matrix/packed_matrix.hpp"

namespace {

using namespace detent;

packed_matrix const& without_rows() {
    static packed_matrix const w{.bits = 4,
                                 .extent = {0, 8},
                                 .tile = {1, 8},
                                 .scales = {{0, 8}, {1, 8}, float_format::f16, true},
                                 .table = std::vector<float>(16),
                                 .codes = buffer(8)};
    return w;
}

void by_headers(benchmark::State& state) {
    packed_view const w = without_rows().view();
    float const x[8] = {};
    float y = 0;
    for (auto _ : state) {
        kernel::multiply(w, x, 8, 1, &y, 1);
        benchmark::DoNotOptimize(y);
    }
}
BENCHMARK(by_headers);

#if defined(DETENT_KERNELS)
void by_compiled_kernels(benchmark::State& state) {
    packed_view const w = without_rows().view();
    float const x[8] = {};
    float y = 0;
    executor_ref const executor;
    compiled::loop const loop{&executor, 1, [](void const*, std::int64_t n, void (*body)(void*, std::int64_t),
                                               void* data) {
                                  for (std::int64_t i = 0; i < n; ++i) {
                                      body(data, i);
                                  }
                              }};
    for (auto _ : state) {
        compiled::chosen().multiply(&w, x, 8, 1, &y, 1, loop, 0);
        benchmark::DoNotOptimize(y);
    }
}
BENCHMARK(by_compiled_kernels);
#endif

} // namespace

BENCHMARK_MAIN();
