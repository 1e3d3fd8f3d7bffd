// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// A step of learning how a LLaMA block is quantized: learn/<hidden>/<heads>/<intermediate>/<tokens>/<kind>/<threads>,
// where kind 0 learns clipping for weights of 3 bits, 1 clipping and a transform for weights and activations of 4 bits.
// `products %` and the others say what the time goes to, `of peak` is the rate of all products of linear layers over
// that of our float product of large matrices in the same run, `epoch of 32 s` what 32 such steps take. `memory` is the
// most that was resident, and `over plan` that over the float weights, the rounded ones, and what the backward pass
// must find of the forward pass, with nothing twice.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <sys/resource.h>

#include "detent/calibrate/learn_block.hpp"
#include "detent/detent.hpp"
#include "detent/model/learned_block.hpp"
#include "detent/nn/linear.hpp"
#include "detent/nn/rotary_law.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

dense_block<float> llama_block(index_t hidden, index_t heads, index_t intermediate) {
    auto const layer = [](index_t out, index_t in) {
        return dense_linear<float>{matrix::Random(out, in) / std::sqrt(static_cast<float>(in)), {}};
    };
    dense_block<float> b;
    b.attention_norms.input = norm_layer{.weight = float_vector::Ones(hidden)};
    b.mlp_norms.input = b.attention_norms.input;
    b.query = layer(hidden, hidden);
    b.key = layer(hidden, hidden);
    b.value = layer(hidden, hidden);
    b.output = layer(hidden, hidden);
    b.mlps.push_back({layer(intermediate, hidden), layer(intermediate, hidden), layer(hidden, intermediate)});
    b.heads = {heads, heads, hidden / heads};
    b.attention.scale = 1 / std::sqrt(static_cast<double>(b.heads.head_dim));
    b.rotary.emplace().dimensions = b.heads.head_dim;
    return b;
}

void learn(benchmark::State& state) {
    index_t const hidden = state.range(0), heads = state.range(1), intermediate = state.range(2);
    index_t const tokens = state.range(3);
    bool const transforms = state.range(4) == 1;
    thread_team pool(state.range(5));
    stopwatch watch;
    executor_ref const executor = executor_ref(pool).timed_by(watch);

    // What the machine does at best, on a product that is large and needs no gradient.
    matrix const left = matrix::Random(2048, 4096), right = matrix::Random(4096, 4096);
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 5; ++i) {
        least =
            std::min(least, seconds([&] { benchmark::DoNotOptimize(nn::linear(left, right, {}, executor).data()); }));
    }
    double const peak = 2.0 * 2048 * 4096 * 4096 / least;

    block_parameters<float> p;
    block_rounding<float> rounding;
    fake_quantizer<float> const weights(transforms ? any_grid(int_grid<4>{}) : any_grid(int_grid<3>{}), 0);
    auto floats = llama_block(hidden, heads, intermediate);
    matrix const x = matrix::Random(tokens, hidden), target = matrix::Random(tokens, hidden);
    if (transforms) {
        any_grid const int4(int_grid<4>{});
        rounding = {fake_quantizer<float>(int4, 0), fake_quantizer<float>(int4, hidden / heads)};
        p.transform = first_transform(floats, x, {}, {}, true, executor);
    }
    for (layer_place const place : floats.places()) {
        p.clips[place] = learned_clip<float>::of(floats.linear(place).shape().rows, 1);
    }
    learned_block<float> const block(std::move(floats), weights, rounding);
    std::vector<matrix_view> const targets{target};

    watch.lap();
    for (auto _ : state) {
        auto gradient = p.zeros();
        benchmark::DoNotOptimize(block.loss(p, x, targets, {}, gradient, executor));
    }
    work_times const times = watch.lap();
    auto const share = [&](work kind) { return 100 * times[kind] / times.total(); };
    auto const rows = static_cast<double>(tokens);
    auto const numbers = static_cast<double>(4 * hidden * hidden + 3 * hidden * intermediate);
    state.counters["products %"] = share(work_kind::products);
    state.counters["attention %"] = share(work_kind::attention);
    state.counters["rounding %"] = share(work_kind::rounding);
    state.counters["other %"] = share(work_kind::other);
    state.counters["of peak"] =
        6 * numbers * rows * static_cast<double>(state.iterations()) / times[work_kind::products] / peak;
    state.counters["peak GFLOP/s"] = peak / 1e9;
    state.counters["epoch of 32 s"] = 32 * times.total() / static_cast<double>(state.iterations());

    // Both inputs of the norms and the output; inputs of linear layers before and, with a transform, after rounding;
    // queries, keys and values likewise; gate, up and their product.
    double const copies = transforms ? 2 : 1;
    double const planned = 4 * (2 * numbers + rows * static_cast<double>(hidden) * (3 + 3 * copies + 3 * copies) +
                                rows * static_cast<double>(intermediate) * (2 + copies));
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    state.counters["memory MB"] = static_cast<double>(used.ru_maxrss) / 1024;
    state.counters["over plan"] = static_cast<double>(used.ru_maxrss) * 1024 / planned;
}

} // namespace

BENCHMARK(learn)->Args({256, 8, 768, 512, 0, 2})->Args({256, 8, 768, 512, 1, 2})->Unit(benchmark::kMillisecond);
BENCHMARK(learn)
    ->Args({4096, 32, 11008, 2048, 0, 2})
    ->Args({4096, 32, 11008, 2048, 1, 2})
    ->Unit(benchmark::kMillisecond)
    ->Iterations(2);

int main(int argc, char** argv) { run_benchmarks(argc, argv); }
