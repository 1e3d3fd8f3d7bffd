// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Fitting the scales of a 4096 x 4096 matrix with OWQ's search over range and zero point, in turns with a GPTQ solve of
// that matrix with min-max ranges, on as many threads as OpenMP has:
//   channel<bits>  whole rows, 100 widths
//   group<bits>    groups of 128, 40 widths
// The time is that of the fits; `of a solve` is the median over turns of its share of the time of the solve.

#include "detent/scale/truncated.hpp"

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr index_t size = 4096;

struct evidence {
    matrix w;
    hessian h;
};

evidence const& layer() {
    static evidence const e = [] {
        // Normal weights, more or less, and inputs that repeat themselves from feature to feature.
        matrix const w = matrix::Random(size, size) + matrix::Random(size, size) + matrix::Random(size, size);
        matrix x = matrix::Random(size / 4, size); // (token, in)
        for (index_t j = 1; j < size; ++j) {
            x.col(j) = 0.6F * x.col(j - 1) + 0.8F * x.col(j);
        }
        thread_team all;
        return evidence{w, hessian::of(x, all)};
    }();
    return e;
}

template <Grid G, Granularity P, class R>
void fit(benchmark::State& state, R const& range, P const& granularity) {
    evidence const& l = layer();
    problem_of<G, P, R> const searched{G{}, granularity, range};
    problem_of<G, P, minmax_range> const plain{G{}, granularity};
    thread_team all;
    std::vector<double> shares;
    for (auto _ : state) {
        solution s = searched.begin(l.w);
        double const fits = seconds([&] { searched.fit_all(l.w, s, all); });
        benchmark::DoNotOptimize(s.scales.scales.data());
        shares.push_back(fits / seconds([&] {
                             benchmark::DoNotOptimize(gptq<>{}.solve(l.w, l.h, plain, all).codes.data());
                         }));
        state.SetIterationTime(fits);
    }
    state.counters["of a solve"] = median(shares);
}

template <int Bits> void channel(benchmark::State& state) {
    fit<int_grid<Bits>>(state, truncated_range{}, per_channel{});
}
template <int Bits> void group(benchmark::State& state) {
    fit<int_grid<Bits>>(state, truncated_range{.steps = 40}, per_group<128>{});
}

void configure(benchmark::internal::Benchmark* b) { b->UseManualTime()->Iterations(3)->Unit(benchmark::kMillisecond); }

BENCHMARK(channel<3>)->Apply(configure);
BENCHMARK(channel<4>)->Apply(configure);
BENCHMARK(group<3>)->Apply(configure);
BENCHMARK(group<4>)->Apply(configure);

} // namespace

int main(int argc, char** argv) { run_benchmarks(argc, argv); }
