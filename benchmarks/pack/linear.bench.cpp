// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Packing and unpacking 4096 x 4096 codes in turns with copying as many bytes as they read and write:
// pack/<bits>, unpack/<bits>; `speedup` is over the copy.

#include "detent/pack/linear.hpp"

#include <cstring>
#include <vector>

#include "detent/matrix/packed_matrix.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr extents shape{4096, 4096};

/// Runs `ours` in turns with a copy that reads and writes as many bytes as the codes and their packed form have.
template <class F> void against_copy(benchmark::State& state, index_t packed_bytes, F const& ours) {
    auto const half = static_cast<std::size_t>(shape.size() + packed_bytes) / 2;
    std::vector<std::uint8_t> const from(half, 1);
    std::vector<std::uint8_t> to(half);
    compare(state, 0, ours, [&] {
        std::memcpy(to.data(), from.data(), half);
        benchmark::DoNotOptimize(to.data());
    });
    state.counters.erase("GFLOP/s");
    state.counters.erase("other GFLOP/s");
}

void pack(benchmark::State& state) {
    with_bits(static_cast<int>(state.range(0)), [&]<int Bits> {
        std::vector<code> const codes(static_cast<std::size_t>(shape.size()), 1);
        index_t const row_bytes = linear_packing<Bits>::row_bytes(shape.cols);
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(shape.rows * row_bytes));
        against_copy(state, std::ssize(bytes), [&] {
            for (index_t r = 0; r < shape.rows; ++r) {
                linear_packing<Bits>::pack(codes.data() + r * shape.cols, shape.cols, bytes.data() + r * row_bytes);
            }
            benchmark::DoNotOptimize(bytes.data());
        });
    });
}

void unpack(benchmark::State& state) {
    with_bits(static_cast<int>(state.range(0)), [&]<int Bits> {
        std::vector<code> codes(static_cast<std::size_t>(shape.size()), 1);
        buffer const bytes = pack_rows(Bits, shape, codes.data());
        index_t const row_bytes = linear_packing<Bits>::row_bytes(shape.cols);
        against_copy(state, bytes.size(), [&] {
            for (index_t r = 0; r < shape.rows; ++r) {
                linear_packing<Bits>::unpack(bytes.data() + r * row_bytes, shape.cols, codes.data() + r * shape.cols);
            }
            benchmark::DoNotOptimize(codes.data());
        });
    });
}

} // namespace

BENCHMARK(pack)->DenseRange(2, 8)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(unpack)->DenseRange(2, 8)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK_MAIN();
