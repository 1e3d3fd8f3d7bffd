// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// GPTQ from Hessian to codes, int4 in groups of 128, on as many threads as OpenMP has:
//   solve/<out>/<in>          against its floor, in^3/3 flops of the factorization at the rate of Eigen's double
//   product
//                             and out in^2 flops of the sweep at the rate of its float product; `floors` is the time in
//                             floors; in double, which is the default, or in float.
//   transcription/<out>/<in>  against a straightforward transcription of the published steps in float; `equal codes` is
//   the
//                             share of codes that agree
// Rates are measured in turns with the solves.

#include <Eigen/Cholesky>

#include "detent/detent.hpp"
#include "detent/solver/gptq.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

struct layer {
    matrix w;
    hessian h;
    problem_of<int_grid<4>, per_group<128>, minmax_range> p{int_grid<4>{}};

    layer(index_t out, index_t in) : w(matrix::Random(out, in)) {
        // Inputs that repeat themselves from feature to feature, as activations do.
        matrix x = matrix::Random(in / 4 + 100, in); // (token, in)
        for (index_t j = 1; j < in; ++j) {
            x.col(j) = 0.6F * x.col(j - 1) + 0.8F * x.col(j);
        }
        thread_team all;
        h = hessian::of(x, all);
    }
};

template <class Scalar> void solve(benchmark::State& state) {
    layer const l(state.range(0), state.range(1));
    auto const out = static_cast<double>(state.range(0));
    auto const in = static_cast<double>(state.range(1));
    thread_team all;
    std::vector<double> floors;
    std::vector<double> times;
    for (auto _ : state) {
        double const before = in * in * in / 3 / product_rate<double>() + out * in * in / product_rate<float>();
        times.push_back(
            seconds([&] { benchmark::DoNotOptimize(gptq<Scalar>{}.solve(l.w, l.h, l.p, all).codes.data()); }));
        double const after = in * in * in / 3 / product_rate<double>() + out * in * in / product_rate<float>();
        floors.push_back(times.back() / (0.5 * (before + after)));
        state.SetIterationTime(times.back());
    }
    state.counters["floors"] = median(floors);
    state.counters["GFLOP/s"] = (in * in * in / 3 + out * in * in) / median(times) / 1e9;
    state.counters["float product"] = product_rate<float>() / 1e9;
    state.counters["double product"] = product_rate<double>() / 1e9;
}

/// The steps of the published code one after the other: two Cholesky factorizations and an inverse between them, blocks
/// of 128 columns, errors moved to the right at once. @returns the codes.
Eigen::Matrix<code, Eigen::Dynamic, Eigen::Dynamic> transcription(layer const& l) {
    using columns = Eigen::MatrixXf;
    constexpr index_t block = 128;
    index_t const out = l.w.rows();
    index_t const in = l.w.cols();
    columns w = l.w;
    columns h(in, in);
    for (index_t j = 0; j < in; ++j) {
        for (index_t i = 0; i < in; ++i) {
            h(i, j) = static_cast<float>(l.h(i, j));
        }
    }
    h.diagonal().array() += 0.01F * h.diagonal().mean();
    columns const inverse = Eigen::LLT<columns>(h).solve(columns::Identity(in, in));
    columns const u = Eigen::LLT<columns>(inverse).matrixU();
    Eigen::Matrix<code, Eigen::Dynamic, Eigen::Dynamic> codes(out, in);
    std::vector<tile_scale> scales(static_cast<std::size_t>(out));
    columns errors(out, block);
    for (index_t begin = 0; begin < in; begin += block) {
        index_t const n = std::min(block, in - begin);
        matrix const group = w.middleCols(begin, n);
        for (index_t row = 0; row < out; ++row) {
            scales[static_cast<std::size_t>(row)] = l.p.fit(group.row(row), row, 0);
        }
        columns w1 = w.middleCols(begin, n);
        for (index_t i = 0; i < n; ++i) {
            float const d = u(begin + i, begin + i);
            for (index_t row = 0; row < out; ++row) {
                tile_scale const s = scales[static_cast<std::size_t>(row)];
                code const c = encode(int_grid<4>{}, w1(row, i), s);
                codes(row, begin + i) = c;
                errors(row, i) = (w1(row, i) - decode(int_grid<4>{}, c, s)) / d;
            }
            w1.rightCols(n - i).noalias() -= errors.col(i) * u.row(begin + i).segment(begin + i, n - i);
        }
        w.rightCols(in - begin - n).noalias() -= errors.leftCols(n) * u.block(begin, begin + n, n, in - begin - n);
    }
    return codes;
}

template <class Scalar> void against_transcription(benchmark::State& state) {
    layer const l(state.range(0), state.range(1));
    auto const out = static_cast<double>(state.range(0));
    auto const in = static_cast<double>(state.range(1));
    thread_team all;
    Eigen::Matrix<code, Eigen::Dynamic, Eigen::Dynamic> theirs;
    solution ours;
    compare(
        state, in * in * in / 3 + out * in * in, [&] { ours = gptq<Scalar>{}.solve(l.w, l.h, l.p, all); },
        [&] { theirs = transcription(l); });
    index_t equal = 0;
    for (index_t i = 0; i < l.w.rows(); ++i) {
        for (index_t j = 0; j < l.w.cols(); ++j) {
            equal += ours.code_at(i, j) == theirs(i, j) ? 1 : 0;
        }
    }
    state.counters["equal codes"] = static_cast<double>(equal) / static_cast<double>(l.w.size());
}

void configure(benchmark::internal::Benchmark* b) { b->UseManualTime()->Iterations(3)->Unit(benchmark::kMillisecond); }

BENCHMARK(solve<double>)
    ->Name("solve in double")
    ->Args({1024, 1024})
    ->Args({4096, 4096})
    ->Args({4096, 11008})
    ->Apply(configure);
BENCHMARK(solve<float>)->Name("solve in float")->Args({1024, 1024})->Args({4096, 4096})->Apply(configure);
BENCHMARK(against_transcription<double>)->Name("transcription, ours in double")->Args({4096, 4096})->Apply(configure);
BENCHMARK(against_transcription<float>)->Name("transcription, ours in float")->Args({4096, 4096})->Apply(configure);

} // namespace

int main(int argc, char** argv) { run_benchmarks(argc, argv); }
