// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// What an engine's calls save and cost, in turns, int4 in groups of 128, 4096 x 4096, one thread: the product with a
// bias and a gate over the product alone (`speedup` 0.98 and more is a cost of at most 2 %) and over the same in passes
// of their own, three products of one call over three calls, stored scales over floats.

#include <cmath>
#include <vector>

#include "detent/detent.hpp"
#include "detent/kernel/multiply.hpp"
#include "detent/nn/activation.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr index_t n = 4096;

struct layers {
    std::vector<packed_matrix> all;
    matrix x;
    matrix y;
    matrix up;
    matrix bias;
    workspace memory;
    std::size_t turn = 0;

    explicit layers(index_t tokens)
        : all(12, quantizer<int_grid<4>, per_group<128>>{}(matrix::Random(n, n)).packed()),
          x(matrix::Random(tokens, n)), y(tokens, n), up(matrix::Random(tokens, n)), bias(matrix::Random(1, n)) {}

    packed_view next() { return all[turn++ % all.size()].view(); }
    executor_ref executor() { return executor_ref().with_memory(memory); }
    void alone() {
        kernel::multiply(next(), x.data(), n, x.rows(), y.data(), n, executor());
        benchmark::DoNotOptimize(y.data());
    }
    epilogue after() const { return {bias.data(), epilogue_function::silu, up.data(), n, nullptr, 0}; }
    void fused() {
        matrix_product const p{next(), y.data(), n, after()};
        kernel::multiply({&p, 1}, x.data(), n, x.rows(), executor());
        benchmark::DoNotOptimize(y.data());
    }
    double flops() const { return 2.0 * n * n * static_cast<double>(x.rows()); }
};

void fused_over_alone(benchmark::State& state) {
    layers l(state.range(0));
    compare(
        state, l.flops(), [&] { l.fused(); }, [&] { l.alone(); });
}

void fused_over_passes(benchmark::State& state) {
    layers l(state.range(0));
    compare(
        state, l.flops(), [&] { l.fused(); },
        [&] {
            l.alone();
            l.y.rowwise() += l.bias.row(0);
            l.y = nn::silu<float>(std::move(l.y)).cwiseProduct(l.up);
            benchmark::DoNotOptimize(l.y.data());
        });
}

void three_at_once(benchmark::State& state) {
    layers l(state.range(0));
    matrix k(l.x.rows(), n);
    matrix v(l.x.rows(), n);
    compare(
        state, 3 * l.flops(),
        [&] {
            matrix_product const products[] = {
                {l.next(), l.y.data(), n}, {l.next(), k.data(), n}, {l.next(), v.data(), n}};
            kernel::multiply(products, l.x.data(), n, l.x.rows(), l.executor());
        },
        [&] {
            for (int i = 0; i < 3; ++i) {
                l.alone();
            }
        });
}

void stored_scales(benchmark::State& state) {
    layers l(state.range(0));
    std::vector<std::vector<half>> scales;
    for (packed_matrix const& w : l.all) {
        scales.emplace_back();
        for (float const s : w.scales.scales) {
            scales.back().emplace_back(s);
        }
    }
    compare(
        state, l.flops(),
        [&] {
            std::size_t const i = l.turn % l.all.size();
            packed_view w = l.next();
            w.scales = nullptr;
            w.stored_scales = reinterpret_cast<std::uint8_t const*>(scales[i].data());
            w.stored_as = scale_kind::f16;
            w.readable = 0;
            kernel::multiply(w, l.x.data(), n, l.x.rows(), l.y.data(), n, l.executor());
            benchmark::DoNotOptimize(l.y.data());
        },
        [&] { l.alone(); });
}

} // namespace

BENCHMARK(fused_over_alone)->Arg(1)->Arg(4)->Arg(16)->UseManualTime()->MinTime(1);
BENCHMARK(fused_over_passes)->Arg(1)->Arg(4)->Arg(16)->UseManualTime()->MinTime(1);
BENCHMARK(three_at_once)->Arg(1)->Arg(4)->Arg(16)->UseManualTime()->MinTime(1);
BENCHMARK(stored_scales)->Arg(1)->Arg(4)->Arg(16)->UseManualTime()->MinTime(1);
BENCHMARK_MAIN();
