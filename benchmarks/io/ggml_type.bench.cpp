// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Blocks of ggml to packed matrices of 4096 x 4096 weights and back, in turns with copying as many bytes of blocks:
// read/<type> and write/<type>; `speedup` is over the copy, `GB/s` counts the bytes of blocks.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "detent/io/ggml_type.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr extents shape{4096, 4096};

/// Blocks whose scales, wherever they are, are finite numbers.
std::vector<std::uint8_t> blocks_of(io::ggml_type const& type) {
    std::vector<index_t> const sizes{shape.rows, shape.cols};
    return std::vector<std::uint8_t>(static_cast<std::size_t>(type.bytes(sizes, "blocks")), 0x2A);
}

void measure(benchmark::State& state, io::ggml_type const& type, bool writes) {
    auto const blocks = blocks_of(type);
    auto copy = blocks;
    auto written = blocks;
    packed_matrix w = type.read(blocks.data(), shape);
    compare(
        state, static_cast<double>(blocks.size()),
        [&] {
            if (writes) {
                type.write(w, 0, shape.rows, written.data());
                benchmark::DoNotOptimize(written.data());
            } else {
                w = type.read(blocks.data(), shape);
                benchmark::DoNotOptimize(w.codes.data());
            }
        },
        [&] {
            std::memcpy(copy.data(), blocks.data(), blocks.size());
            benchmark::DoNotOptimize(copy.data());
        });
    state.counters["GB/s"] = state.counters["GFLOP/s"];
    state.counters["copy GB/s"] = state.counters["other GFLOP/s"];
    state.counters.erase("GFLOP/s");
    state.counters.erase("other GFLOP/s");
}

} // namespace

int main(int argc, char** argv) {
    for (auto const& type : io::ggml_types()) {
        for (bool const writes : {false, true}) {
            if (writes ? type.write != nullptr : type.read != nullptr) {
                std::string const title = (writes ? "write/" : "read/") + std::string(type.name);
                benchmark::RegisterBenchmark(title.c_str(),
                                             [&type, writes](auto& state) { measure(state, type, writes); })
                    ->UseManualTime()
                    ->Unit(benchmark::kMillisecond);
            }
        }
    }
    run_benchmarks(argc, argv);
}
