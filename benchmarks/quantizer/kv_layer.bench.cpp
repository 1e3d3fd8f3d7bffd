// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Attention of one token to a cache: attend/<heads>/<head_dim>/<tokens>/<format>, where format is an index of
// `formats`. `speedup` is that over Eigen's products with a float cache (token, heads * head_dim), in turns with it.

#include "detent/grid/fp_grid.hpp"
#include "detent/grid/int_grid.hpp"
#include "detent/nn/attention.hpp"
#include "detent/quantizer/kv_layer.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

kv_format format_of(index_t i) {
    switch (i) {
    case 0:
        return {};
    case 1:
        return kv_format::of(any_grid(int_grid<8>{}, "int8"));
    case 2: {
        kv_format int4 = kv_format::of(any_grid(int_grid<4>{}, "int4"), 16);
        int4.centered = true;
        return int4;
    }
    default:
        return kv_format::of(any_grid(fp_grid<4, 3>{}, "e4m3"));
    }
}

void attend(benchmark::State& state) {
    index_t const heads = state.range(0);
    index_t const head_dim = state.range(1);
    index_t const tokens = state.range(2);
    matrix const k = matrix::Random(tokens, heads * head_dim);
    matrix const v = matrix::Random(tokens, heads * head_dim);
    matrix const q = matrix::Random(1, heads * head_dim);
    kv_layer cache(format_of(state.range(3)), heads, head_dim, tokens);
    cache.append(k, v);
    compare(
        state, 4.0 * static_cast<double>(tokens * heads * head_dim),
        [&] { benchmark::DoNotOptimize(cache.attend(q, {.scale = 0.1F}).data()); },
        [&] {
            auto const y = nn::attention(q, k, v, {heads, heads, head_dim}, {.start = tokens - 1}, 0.1F,
                                         nn::attention_mask::causal);
            benchmark::DoNotOptimize(y.data());
        });
    state.counters["bits"] = cache.keys().bits_per_number();
}

BENCHMARK(attend)
    ->ArgsProduct({{32}, {128}, {2048}, {0, 1, 2, 3}})
    ->ArgsProduct({{6}, {48}, {2048}, {0, 1, 2, 3}})
    ->Iterations(41)
    ->UseManualTime();

} // namespace

int main(int argc, char** argv) { run_benchmarks(argc, argv); }
