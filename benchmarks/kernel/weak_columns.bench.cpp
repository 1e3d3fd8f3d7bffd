// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What weak columns cost a product, in turns: multiply/<grid>/<weak columns>/<tokens>/<threads>. `speedup` is the
// time without over the time with them. The weights take turns too, so that they come from memory as those of a large
// model do.

#include "detent/kernel/weak_columns.hpp"

#include <cstdint>
#include <vector>

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

template <class G> void multiply(benchmark::State& state) {
    constexpr index_t size = 4096;
    constexpr std::size_t copies = 12;
    index_t const count = state.range(0);
    index_t const tokens = state.range(1);
    std::vector<packed_matrix> const plain(copies, quantizer<G, per_group<128>>{}(matrix::Random(size, size)).packed());
    std::vector<packed_matrix> weak = plain;
    for (packed_matrix& w : weak) { // what the codes there stand for makes no difference to the time
        std::vector<std::int32_t> columns;
        for (index_t k = 0; k < count; ++k) {
            columns.push_back(static_cast<std::int32_t>((2 * k + 1) * size / (2 * count)));
        }
        w.weak = weak_columns(columns, size, float_format::f16);
    }
    matrix const x = matrix::Random(tokens, size); // (token, in)
    matrix y(tokens, size);                        // (token, out)
    thread_team executor(state.range(2));
    auto const product = [&](std::vector<packed_matrix> const& weights, std::size_t& turn) {
        packed_view const w = weights[turn++ % copies].view();
        kernel::multiply(w, x.data(), x.outerStride(), tokens, y.data(), y.outerStride(), executor);
        benchmark::DoNotOptimize(y.data());
    };
    std::size_t weak_turn = 0;
    std::size_t plain_turn = 0;
    compare(
        state, 2.0 * static_cast<double>(tokens * size * size), [&] { product(weak, weak_turn); },
        [&] { product(plain, plain_turn); });
}

void counts(benchmark::internal::Benchmark* b) {
    b->ArgsProduct({{12, 54}, {1, 8, 128}, {1, 2}})->UseManualTime()->MinTime(0.5);
}

} // namespace

BENCHMARK(multiply<int_grid<3>>)->Apply(counts);
BENCHMARK(multiply<int_grid<4>>)->Apply(counts);
BENCHMARK_MAIN();
