// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A GPTQ solve from Hessian to codes against its floor in products: in^3/3 + out in^2 flops at the rate of Eigen's
// double product, both measured in turns: solve/<out>/<in>.

#include "detent/solver/gptq.hpp"

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

void solve(benchmark::State& state) {
    index_t const out = state.range(0);
    index_t const in = state.range(1);
    matrix const w = matrix::Random(out, in);
    auto const h = hessian::of(matrix::Random(in + 100, in));
    problem_of const p{int_grid<4>{}, per_group<128>{}, minmax_range{}};
    double const flops = static_cast<double>(in) * static_cast<double>(in) * (static_cast<double>(in) / 3 + static_cast<double>(out));

    constexpr index_t n = 768;
    basic_matrix<double> const a = basic_matrix<double>::Random(n, n);
    basic_matrix<double> b = a;
    double const products = flops / (2.0 * n * n * n); // as many as make up the floor
    compare(
        state, flops, [&] { benchmark::DoNotOptimize(gptq<>{}.solve(w, h, p).codes.data()); },
        [&] {
            for (double done = 0; done < products; ++done) {
                b.noalias() = a * a;
                benchmark::DoNotOptimize(b.data());
            }
        });
}

} // namespace

BENCHMARK(solve)->Args({1024, 1024})->Args({2048, 2048})->UseManualTime()->Iterations(3)->Unit(benchmark::kMillisecond);
BENCHMARK_MAIN();
