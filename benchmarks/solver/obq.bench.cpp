// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// An OBQ solve from Hessian to codes against its floor in products, both measured in turns: out in^3/3 flops for the
// rows and in^3 for the factor and the inverse, at the rate of Eigen's double product: solve/<out>/<in>.
//
// And its error against GPTQ's in natural order, on random layers of 64 outputs, for kinds of inputs that depend on
// each other: against_gptq<grid>/<kind>/<in>/<layers>. `won` is the share of layers where OBQ's error is no larger,
// `error` the mean ratio of the errors; `... plain` is without `outliers_first`; `... ordered` against GPTQ in
// activation order.

#include "detent/solver/obq.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "detent/detent.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

void solve(benchmark::State& state) {
    index_t const out = state.range(0);
    index_t const in = state.range(1);
    matrix const w = matrix::Random(out, in);
    auto const h = hessian::of(matrix::Random(in + 100, in));
    problem_of const p{int_grid<4>{}, per_group<128>{}, minmax_range{}};
    double const flops = std::pow(static_cast<double>(in), 3) * (static_cast<double>(out) / 3 + 1);

    constexpr index_t n = 768;
    basic_matrix<double> const a = basic_matrix<double>::Random(n, n);
    basic_matrix<double> b = a;
    double const products = flops / (2.0 * n * n * n); // as many as make up the floor
    serial one;                                        // both in one thread
    compare(
        state, flops, [&] { benchmark::DoNotOptimize(obq{}.solve(w, h, p, one).codes.data()); },
        [&] {
            one.for_each(1, [&](index_t) {
                for (double done = 0; done < products; ++done) {
                    b.noalias() = a * a;
                    benchmark::DoNotOptimize(b.data());
                }
            });
        });
    state.counters["ms/row"] = flops / state.counters["GFLOP/s"] / 1e6 / static_cast<double>(out);
}

/// Normal entries.
matrix normal(index_t rows, index_t cols, std::mt19937& random) {
    std::normal_distribution<float> one;
    return matrix::NullaryExpr(rows, cols, [&] { return one(random); });
}

enum class kind { chain, shuffled_chain, low_rank, decaying, unequal };

char const* name(kind k) {
    switch (k) {
    case kind::chain:
        return "each input 0.9 of the one before";
    case kind::shuffled_chain:
        return "the same, shuffled";
    case kind::low_rank:
        return "rank in/8 and noise";
    case kind::decaying:
        return "mixed factors of falling size";
    case kind::unequal:
        return "the same, of log-normal sizes";
    }
    return "";
}

/// Inputs (token, feature) that depend on each other.
matrix inputs(kind k, index_t tokens, index_t in, std::mt19937& random) {
    auto const root = [](index_t n) { return std::sqrt(static_cast<float>(n)); };
    matrix x = normal(tokens, in, random);
    if (k == kind::chain || k == kind::shuffled_chain) {
        for (index_t j = 1; j < in; ++j) {
            x.col(j) = 0.9F * x.col(j - 1) + std::sqrt(0.19F) * x.col(j);
        }
        std::vector<std::int32_t> order(static_cast<std::size_t>(in));
        std::iota(order.begin(), order.end(), 0);
        if (k == kind::shuffled_chain) {
            std::ranges::shuffle(order, random);
        }
        return take_columns(x, order);
    }
    if (k == kind::low_rank) {
        index_t const rank = in / 8;
        return normal(tokens, rank, random) * normal(rank, in, random) / root(rank) + 0.3F * x;
    }
    matrix mix = normal(in, in, random) / root(in);
    for (index_t i = 0; i < in; ++i) {
        mix.row(i) /= 1 + 16 * static_cast<float>(i) / static_cast<float>(in);
    }
    if (k == kind::unequal) {
        mix *= normal(in, 1, random).col(0).array().exp().matrix().asDiagonal();
    }
    return x * mix;
}

template <class G> void against_gptq(benchmark::State& state) {
    auto const k = static_cast<kind>(state.range(0));
    index_t const in = state.range(1);
    auto const layers = static_cast<unsigned>(state.range(2));
    thread_team executor;
    problem_of const p{G{}, per_channel{}, minmax_range{}};
    auto& c = state.counters;
    for (auto _ : state) {
        for (unsigned layer = 0; layer < layers; ++layer) {
            std::mt19937 random(layer);
            hessian const h = hessian::of(inputs(k, 2 * in, in, random), executor);
            matrix const w = normal(64, in, random);
            auto const error = [&](auto const& solver) {
                return h.quadratic(w - dequantize(pack(solver.solve(w, h, p, executor))));
            };
            double const swept = error(gptq<>{});
            double const ordered = error(gptq<>{.activation_order = true});
            double const ours = error(obq{});
            double const plain = error(obq{.outliers_first = false});
            c["won"] += (ours <= swept ? 1.0 : 0.0) / layers;
            c["won plain"] += (plain <= swept ? 1.0 : 0.0) / layers;
            c["won ordered"] += (ours <= ordered ? 1.0 : 0.0) / layers;
            c["error"] += ours / swept / layers;
            c["error plain"] += plain / swept / layers;
            c["error ordered"] += ours / ordered / layers;
        }
    }
    state.SetLabel(name(k));
}

} // namespace

BENCHMARK(solve)->Args({16, 1024})->Args({4, 2048})->UseManualTime()->Iterations(5)->Unit(benchmark::kMillisecond);
BENCHMARK(against_gptq<int_grid<4>>)
    ->ArgsProduct({{0, 1, 2, 3, 4}, {256}, {20}})
    ->ArgsProduct({{0, 1, 2, 3, 4}, {1024}, {4}})
    ->Iterations(1)
    ->Unit(benchmark::kSecond);
BENCHMARK(against_gptq<int_grid<3>>)
    ->ArgsProduct({{0, 1, 2, 3, 4}, {256}, {20}})
    ->ArgsProduct({{0, 1, 2, 3, 4}, {1024}, {4}})
    ->Iterations(1)
    ->Unit(benchmark::kSecond);
BENCHMARK_MAIN();
