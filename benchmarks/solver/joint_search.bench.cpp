// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The search of format and range of the weights of a 4096 x 4096 layer, three formats of 4 bits with 100 ranges each,
// in turns with a GPTQ solve of that layer, on as many threads as OpenMP has:
//   weights  `choose_format`; `of a solve` is the median over turns of its share of the time of the solve
//   joint    `joint_search` with the formats and ranges of 4096 inputs too, and shifted features

#include "detent/solver/joint_search.hpp"

#include <array>

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

constexpr index_t size = 4096;

struct evidence {
    matrix w;
    matrix x; // (token, in)
    layer_inputs inputs;
};

evidence const& layer() {
    static evidence const e = [] {
        // Normal weights, more or less; inputs that repeat themselves from feature to feature, some of them large.
        matrix const w = matrix::Random(size, size) + matrix::Random(size, size) + matrix::Random(size, size);
        matrix x = matrix::Random(size, size);
        for (index_t j = 1; j < size; ++j) {
            x.col(j) = 0.6F * x.col(j - 1) + 0.8F * x.col(j);
        }
        for (index_t j = 0; j < size; j += 512) {
            x.col(j) *= 16;
        }
        thread_team all;
        layer_inputs inputs(size);
        inputs.add(x, all);
        return evidence{w, x, inputs};
    }();
    return e;
}

template <class Search> void measure(benchmark::State& state, Search const& search) {
    evidence const& l = layer();
    problem_of const usual{e2m1{}, per_channel{}, absmax_range{}};
    problem_of const uniform{fp_grid<1, 2>{}, per_channel{}, absmax_range{}};
    problem_of const powers{fp_grid<3, 0>{}, per_channel{}, absmax_range{}};
    std::array<problem const*, 3> const formats{&usual, &uniform, &powers};
    thread_team all;
    std::vector<double> shares;
    for (auto _ : state) {
        double const searched = seconds([&] { search(l, formats, all); });
        shares.push_back(searched / seconds([&] {
                             benchmark::DoNotOptimize(gptq<>{}.solve(l.w, l.inputs.hessian(), usual, all).codes.data());
                         }));
        state.SetIterationTime(searched);
    }
    state.counters["of a solve"] = median(shares);
}

void weights(benchmark::State& state) {
    measure(state, [](evidence const& l, auto const& formats, executor_ref executor) {
        benchmark::DoNotOptimize(choose_format(l.w, l.inputs, formats, {}, executor).weights.codes.data());
    });
}

void joint(benchmark::State& state) {
    measure(state, [](evidence const& l, auto const& formats, executor_ref executor) {
        std::array const grids{any_grid(e2m1{}), any_grid(fp_grid<1, 2>{}), any_grid(fp_grid<3, 0>{})};
        benchmark::DoNotOptimize(joint_search{.shifted = true}(l.w, l.x, formats, grids, executor).weights.format);
    });
}

BENCHMARK(weights)->UseManualTime()->Iterations(3)->Unit(benchmark::kMillisecond);
BENCHMARK(joint)->UseManualTime()->Iterations(1)->Unit(benchmark::kMillisecond);

} // namespace

int main(int argc, char** argv) { run_benchmarks(argc, argv); }
