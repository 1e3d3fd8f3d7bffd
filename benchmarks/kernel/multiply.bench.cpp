// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The packed product against Eigen's product with the same matrix as floats and against reading memory, in turns:
// multiply/<grid>/<out>/<in>/<tokens>/<threads>. Each product takes the next of as many copies of the matrix as no
// cache holds. `GB/s` are of codes, scales and zero points as files have them, `of reading` their share of the rate at
// which as many threads read memory.

#include "detent/kernel/multiply.hpp"

#include <cstdint>
#include <vector>

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

/// Bytes per second at which `executor` reads memory.
double reading_rate(executor_ref executor) {
    static std::vector<std::uint64_t> const memory(std::size_t{1} << 25, 1); // 256 MB
    index_t const pieces = 16;
    index_t const words = std::ssize(memory) / pieces;
    return static_cast<double>(std::ssize(memory) * 8) / seconds([&] {
               executor.for_each(pieces, [&](index_t i) {
                   read_memory(memory.data() + i * words, words);
               });
           });
}

template <class G> void multiply(benchmark::State& state) {
    matrix const weights = matrix::Random(state.range(0), state.range(1)); // (out, in)
    matrix const x = matrix::Random(state.range(2), state.range(1));       // (token, in)
    thread_team two(state.range(3));
    executor_ref const executor = state.range(3) > 1 ? executor_ref(two) : executor_ref();
    Eigen::setNbThreads(static_cast<int>(state.range(3)));
    packed_matrix const packed = quantizer<G, per_group<128>>{}(weights).packed();
    double const bytes = packed.bits_per_weight() / 8 * static_cast<double>(weights.size());
    auto const copies = static_cast<std::size_t>(128e6 / bytes) + 1;
    std::vector<packed_matrix> const all_packed(copies, packed);
    std::vector<matrix> const all_dense(copies / 4 + 1, weights);
    matrix y(x.rows(), weights.rows()); // (token, out)
    std::size_t turn = 0;
    std::vector<double> rates;
    compare(
        state, 2.0 * static_cast<double>(x.rows() * weights.size()),
        [&] {
            kernel::multiply(all_packed[turn++ % all_packed.size()].view(), x.data(), x.outerStride(), x.rows(),
                             y.data(), y.outerStride(), executor);
            benchmark::DoNotOptimize(y.data());
        },
        [&] {
            matrix const& dense = all_dense[turn % all_dense.size()];
            if (x.rows() == 1) {
                y.row(0).transpose().noalias() = dense * x.row(0).transpose();
            } else {
                y.noalias() = x * dense.transpose();
            }
            benchmark::DoNotOptimize(y.data());
            if (turn % 16 == 0) {
                rates.push_back(reading_rate(executor));
            }
        });
    if (!rates.empty()) {
        double const rate = bytes * state.counters["GFLOP/s"] / (2.0 * static_cast<double>(x.rows() * weights.size()));
        state.counters["GB/s"] = rate;
        state.counters["of reading"] = rate * 1e9 / median(rates);
    }
}

void shapes(benchmark::internal::Benchmark* b) {
    b->ArgsProduct({{4096}, {4096}, {1, 2, 4, 8, 128}, {1, 2}})->Args({256, 256, 4096, 1});
    b->UseManualTime()->MinTime(1);
}

} // namespace

BENCHMARK(multiply<int_grid<4>>)->Apply(shapes);
BENCHMARK(multiply<int_grid<3>>)->Apply(shapes);
BENCHMARK(multiply<int_grid<2>>)->Apply(shapes);
BENCHMARK(multiply<e2m1>)->Apply(shapes);
BENCHMARK(multiply<nf4>)->Apply(shapes);
BENCHMARK(multiply<int_grid<8>>)->Apply(shapes);
BENCHMARK_MAIN();
