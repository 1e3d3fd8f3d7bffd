// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The packed product against Eigen's product with the same matrix as floats, in turns: multiply/<grid>/<out>/<in>/<tokens>.

#include "detent/kernel/multiply.hpp"

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

template <class G> void multiply(benchmark::State& state) {
    matrix const dense = matrix::Random(state.range(0), state.range(1));    // (out, in)
    matrix const x = matrix::Random(state.range(2), state.range(1));        // (token, in)
    auto const packed = quantizer<G, per_group<128>>{}(dense);
    matrix y(x.rows(), dense.rows()); // (token, out)
    compare(
        state, 2.0 * static_cast<double>(x.rows() * dense.size()),
        [&] {
            kernel::multiply(packed.view(), x.data(), x.outerStride(), x.rows(), y.data(), y.outerStride());
            benchmark::DoNotOptimize(y.data());
        },
        [&] {
            if (x.rows() == 1) {
                y.row(0).transpose().noalias() = dense * x.row(0).transpose();
            } else {
                y.noalias() = x * dense.transpose();
            }
            benchmark::DoNotOptimize(y.data());
        });
}

void shapes(benchmark::internal::Benchmark* b) {
    b->ArgsProduct({{4096}, {4096}, {1, 8, 128}})->Args({256, 256, 4096})->UseManualTime()->MinTime(1);
}

} // namespace

BENCHMARK(multiply<int_grid<4>>)->Apply(shapes);
BENCHMARK(multiply<int_grid<3>>)->Apply(shapes);
BENCHMARK(multiply<e2m1>)->Apply(shapes);
BENCHMARK(multiply<nf4>)->Apply(shapes);
BENCHMARK(multiply<int_grid<8>>)->Apply(shapes);
BENCHMARK_MAIN();
