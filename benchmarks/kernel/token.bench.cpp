// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The products of one token of a decoder with the shapes of LLaMA-7B, int4 in groups of 128, against reading the same
// memory, in turns: token/<input format>/<threads>. Weights are random bytes, 3.5 GB of them.

#include "detent/kernel/multiply.hpp"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

packed_matrix random_weights(extents shape, std::mt19937_64& random) {
    packed_matrix w{.bits = 4,
                    .extent = shape,
                    .tile = {1, 128},
                    .scales = {shape, {1, 128}, float_format::f16, true},
                    .table = std::vector<float>(16),
                    .codes = buffer(shape.size() / 2)};
    std::iota(w.table.begin(), w.table.end(), 0.0F);
    for (index_t i = 0; i < w.codes.size(); i += 8) {
        auto const word = random();
        std::memcpy(w.codes.data() + i, &word, sizeof word);
    }
    for (index_t r = 0; r < w.scales.tiles.rows; ++r) {
        for (index_t c = 0; c < w.scales.tiles.cols; ++c) {
            w.scales.set(r, c, {0.001F, 8});
        }
    }
    return w;
}

/// The matrices of a token in the order of their products.
std::vector<packed_matrix> const& decoder() {
    static std::vector<packed_matrix> const all = [] {
        std::mt19937_64 random(1);
        std::vector<packed_matrix> matrices;
        for (int block = 0; block < 32; ++block) {
            for (extents const shape : {extents{4096, 4096}, {4096, 4096}, {4096, 4096}, {4096, 4096}, {11008, 4096},
                                        {11008, 4096}, {4096, 11008}}) {
                matrices.push_back(random_weights(shape, random));
            }
        }
        matrices.push_back(random_weights({32000, 4096}, random));
        return matrices;
    }();
    return all;
}

/// Reads all codes, scales and zero points, each thread one matrix after the other.
void read_all(executor_ref executor) {
    executor.for_each(std::ssize(decoder()), [&](index_t i) {
        packed_matrix const& w = decoder()[static_cast<std::size_t>(i)];
        auto const read = [](void const* from, std::size_t bytes) {
            read_memory(static_cast<std::uint64_t const*>(from), static_cast<index_t>(bytes / 8));
        };
        read(w.codes.data(), static_cast<std::size_t>(w.codes.size()));
        read(w.scales.scales.data(), w.scales.scales.size() * sizeof(float));
        read(w.scales.zeros.data(), w.scales.zeros.size() * sizeof(float));
    });
}

void token(benchmark::State& state, input_format format) {
    thread_team two(state.range(0));
    executor_ref const executor = state.range(0) > 1 ? executor_ref(two) : executor_ref();
    std::vector<float> x(11008, 0.5F);
    std::vector<float> y(32000);
    double flops = 0;
    for (packed_matrix const& w : decoder()) {
        flops += 2.0 * static_cast<double>(w.shape().size());
    }
    compare(
        state, flops,
        [&] {
            for (packed_matrix const& w : decoder()) {
                kernel::multiply(w.view(), x.data(), w.shape().cols, 1, y.data(), w.shape().rows, executor, format);
                benchmark::DoNotOptimize(y.data());
            }
        },
        [&] { read_all(executor); });
    state.counters["tokens/s"] = 1e9 * state.counters["GFLOP/s"] / flops;
}

} // namespace

BENCHMARK_CAPTURE(token, f32, input_format::f32)->Arg(1)->Arg(2)->UseManualTime()->MinTime(3);
BENCHMARK_CAPTURE(token, int8, input_format::int8)->Arg(1)->Arg(2)->UseManualTime()->MinTime(3);
BENCHMARK_MAIN();
