// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The product with a matrix whose grid is part of its type against the one that chooses kernels at run time, in turns:
// typed_product/<grid>/<out>/<in>/<tokens>, with one thread. Each product takes the next of as many copies of the
// matrix as no cache holds.

#include <vector>

#include "detent/detent.hpp"
#include "detent/quantizer/typed_product.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

template <class G> void typed_product(benchmark::State& state) {
    matrix const weights = matrix::Random(state.range(0), state.range(1)); // (out, in)
    matrix const x = matrix::Random(state.range(2), state.range(1));       // (token, in)
    auto const quantized = quantizer<G, per_group<128>>{}(weights);
    double const bytes = quantized.bits_per_weight() / 8 * static_cast<double>(weights.size());
    std::vector const copies(static_cast<std::size_t>(128e6 / bytes) + 1, quantized);
    matrix y(x.rows(), weights.rows()); // (token, out)
    std::size_t turn = 0;
    auto const next = [&]() -> auto const& { return copies[turn++ % copies.size()]; };
    compare(
        state, 2.0 * static_cast<double>(x.rows() * weights.size()),
        [&] {
            multiply(next(), x, y);
            benchmark::DoNotOptimize(y.data());
        },
        [&] {
            multiply(next().packed(), x, y);
            benchmark::DoNotOptimize(y.data());
        });
}

void shapes(benchmark::internal::Benchmark* b) {
    b->ArgsProduct({{4096}, {4096}, {1, 128}})->Args({256, 256, 1});
    b->UseManualTime()->MinTime(1);
}

} // namespace

BENCHMARK(typed_product<int_grid<4>>)->Apply(shapes);
BENCHMARK(typed_product<e2m1>)->Apply(shapes);
BENCHMARK(typed_product<nf4>)->Apply(shapes);
BENCHMARK(typed_product<int_grid<3>>)->Apply(shapes);
BENCHMARK(typed_product<e4m3>)->Apply(shapes);
BENCHMARK_MAIN();
