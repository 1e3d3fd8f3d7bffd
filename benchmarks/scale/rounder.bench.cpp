// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Rounding weights to codes and numbers against the scalar loop of encode and decode, in turns: round<grid>/<weights>.
// Their GFLOP/s are 1e9 weights a second.

#include "detent/scale/rounder.hpp"

#include <vector>

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

template <Grid G> void round(benchmark::State& state) {
    index_t const n = state.range(0);
    G const grid;
    rounder<G> const round(grid);
    float_vector const weights = grid.highest() * float_vector::Random(n);
    float_vector const scales = float_vector::Random(n).array().abs() + 0.5F;
    float_vector const zeros = float_vector::Constant(n, AffineGrid<G> ? 7.0F : 0.0F);
    std::vector<code> codes(static_cast<std::size_t>(n));
    float_vector numbers(n);
    constexpr int times = 200;
    compare(
        state, static_cast<double>(n) * times,
        [&] {
            for (int t = 0; t < times; ++t) {
                round(n, weights.data(), scales.data(), zeros.data(), codes.data(), numbers.data());
                benchmark::DoNotOptimize(numbers.data());
                benchmark::ClobberMemory();
            }
        },
        [&] {
            for (int t = 0; t < times; ++t) {
                for (index_t i = 0; i < n; ++i) {
                    tile_scale const s{scales[i], zeros[i]};
                    code const c = encode(grid, weights[i], s);
                    codes[static_cast<std::size_t>(i)] = c;
                    numbers[i] = decode(grid, c, s);
                }
                benchmark::DoNotOptimize(numbers.data());
                benchmark::ClobberMemory();
            }
        });
}

} // namespace

BENCHMARK(round<int_grid<4>>)->Arg(1024)->UseManualTime()->Iterations(25)->Unit(benchmark::kMicrosecond);
BENCHMARK(round<e2m1>)->Arg(1024)->UseManualTime()->Iterations(25)->Unit(benchmark::kMicrosecond);
BENCHMARK(round<nf4>)->Arg(1024)->UseManualTime()->Iterations(25)->Unit(benchmark::kMicrosecond);
BENCHMARK(round<e4m3>)->Arg(1024)->UseManualTime()->Iterations(25)->Unit(benchmark::kMicrosecond);
BENCHMARK_MAIN();
