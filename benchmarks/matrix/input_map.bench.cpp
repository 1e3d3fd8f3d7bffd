// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What mapping the inputs costs a product, in turns: input_map/<grid>/<map>/<tokens>/<threads>, where the map is 0 for
// a permutation and factors, 1 for rotations of blocks of 128, and 2 for all three. `cost` is the part by which the
// time grows over that of the product without a map. Each product takes the next of as many copies of the weights as no
// cache holds, so that they come from memory as those of a large model do.

#include <cstdint>
#include <vector>

#include "detent/detent.hpp"
#include "detent/matrix/input_map.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr index_t size = 4096;

input_map map_of_kind(index_t kind) {
    input_map map;
    if (kind != 1) {
        permutation p; // an odd factor visits every input once, far from the one before
        diagonal d;
        for (index_t k = 0; k < size; ++k) {
            p.order.push_back(static_cast<std::int32_t>(k * 1237 % size));
            d.factors.push_back(1 + static_cast<float>(k % 7) / 4);
        }
        map.then(std::move(p), size).then(std::move(d), size);
    }
    if (kind != 0) {
        map.then(block_hadamard{128}, size);
    }
    return map;
}

template <class G> void map_inputs(benchmark::State& state) {
    constexpr std::size_t copies = 12;
    std::vector<packed_matrix> const plain(copies, quantizer<G, per_group<128>>{}(matrix::Random(size, size)).packed());
    std::vector<packed_matrix> mapped = plain;
    for (packed_matrix& w : mapped) {
        w.map = map_of_kind(state.range(0));
    }
    index_t const tokens = state.range(1);
    matrix const x = matrix::Random(tokens, size); // (token, in)
    matrix y(tokens, size);                        // (token, out)
    thread_team executor(state.range(2));
    auto const product = [&](std::vector<packed_matrix> const& weights, std::size_t& turn) {
        multiply(weights[turn++ % copies], x, y, executor);
        benchmark::DoNotOptimize(y.data());
    };
    std::size_t mapped_turn = 0;
    std::size_t plain_turn = 0;
    compare(
        state, 2.0 * static_cast<double>(tokens * size * size), [&] { product(mapped, mapped_turn); },
        [&] { product(plain, plain_turn); });
    state.counters["cost"] = 1 / state.counters["speedup"] - 1;
}

void cases(benchmark::internal::Benchmark* b) {
    b->ArgsProduct({{0, 1, 2}, {1, 8, 128}, {1, 2}})->UseManualTime()->MinTime(0.5);
}

} // namespace

BENCHMARK(map_inputs<int_grid<4>>)->Name("input_map/int4")->Apply(cases);
BENCHMARK_MAIN();
