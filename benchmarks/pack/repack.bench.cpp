// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Repacking 4096 x 4096 codes in turns with copying as many bytes: <from>_to_<to>/<bits>; `speedup` is over the copy,
// `GB/s` counts the bytes that are written.

#include <cstring>
#include <string>

#include "detent/core/buffer.hpp"
#include "detent/pack/awq.hpp"
#include "detent/pack/ggml.hpp"
#include "detent/pack/gptq.hpp"
#include "detent/pack/repack.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr extents shape{4096, 4096};

/// Memory that has been written, so that its pages are there.
buffer written(index_t bytes) {
    buffer b(bytes);
    std::memset(b.data(), 0x5A, static_cast<std::size_t>(bytes));
    return b;
}

template <class From, class To> void measure(benchmark::State& state) {
    buffer const from = written(From::bytes(shape));
    buffer to = written(To::bytes(shape));
    auto const bytes = static_cast<std::size_t>(linear_packing<From::bits>::bytes(shape));
    buffer const copied = written(static_cast<index_t>(bytes));
    buffer copy = written(static_cast<index_t>(bytes));
    compare(
        state, static_cast<double>(bytes),
        [&] {
            repack<From, To>(from.data(), shape, to.data());
            benchmark::DoNotOptimize(to.data());
        },
        [&] {
            std::memcpy(copy.data(), copied.data(), bytes);
            benchmark::DoNotOptimize(copy.data());
        });
    state.counters["GB/s"] = state.counters["GFLOP/s"];
    state.counters["copy GB/s"] = state.counters["other GFLOP/s"];
    state.counters.erase("GFLOP/s");
    state.counters.erase("other GFLOP/s");
}

template <class From, class To> void add(std::string const& name) {
    std::string const title = name + "/" + std::to_string(From::bits);
    benchmark::RegisterBenchmark(title.c_str(), measure<From, To>)->UseManualTime()->Unit(benchmark::kMillisecond);
}

/// Both directions between linear packing and another.
template <class Other> void with_linear(std::string const& name) {
    using linear = linear_packing<Other::bits>;
    add<linear, Other>("linear_to_" + name);
    add<Other, linear>(name + "_to_linear");
}

} // namespace

int main(int argc, char** argv) {
    with_linear<gptq_packing<4>>("gptq");
    with_linear<awq_packing>("awq");
    with_linear<ggml_packing<4>>("ggml");
    with_linear<ggml_packing<4, 18>>("q4_0");
    with_linear<gptq_packing<2>>("gptq");
    with_linear<gptq_packing<3>>("gptq");
    with_linear<gptq_packing<8>>("gptq");
    with_linear<ggml_packing<2>>("ggml");
    with_linear<ggml_packing<5>>("ggml");
    with_linear<ggml_packing<8>>("ggml");
    add<awq_packing, gptq_packing<4>>("awq_to_gptq");
    run_benchmarks(argc, argv);
}
