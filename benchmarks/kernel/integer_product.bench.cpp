// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// The product of packed weights and quantized activations on integers, in turns with the packed product of the same
// weights and the activations' numbers as floats (integers/...), and with Eigen's product of floats
// (against_eigen/...): <weights>/<activations>/<out>/<in>/<tokens>. "floor" is the time of the dot products alone at
// the best rate of the instruction, or of reading the weights at the best rate of memory, whichever is longer, over the
// best time taken.

#include "detent/kernel/integer_product.hpp"

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "detent/detent.hpp"
#include "detent/matrix/activation_quantizer.hpp"
#include "interleaved.hpp"

namespace {

using namespace detent;

/// The least of some times.
template <class F> double least_seconds(F const& f) {
    double least = seconds(f);
    for (int i = 0; i < 9; ++i) {
        least = std::min(least, seconds(f));
    }
    return least;
}

/// Gop/s of one thread's dot products of bytes (or of int16 where those are not native), from registers.
double dot_rate() {
    using stored = std::conditional_t<simd::has_byte_dot, std::int8_t, std::int16_t>;
    constexpr int sums = 12; // enough not to wait for one another
    constexpr index_t turns = 400'000;
    double const time = least_seconds([&] {
        simd::ints total[sums];
        for (auto& t : total) {
            t = simd::ints(0);
        }
        simd::ints a(0x01020304);
        for (index_t i = 0; i < turns; ++i) {
#pragma GCC unroll 12
            for (int s = 0; s < sums; ++s) {
                total[s] = simd::add_products<stored>(total[s], a, simd::ints(0x05060708));
            }
            a = a + simd::ints(1); // another product each turn
        }
#pragma GCC unroll 12
        for (int s = 0; s < sums; ++s) {
            a = a + total[s];
        }
        benchmark::DoNotOptimize(a);
    });
    return 2.0 * sums * turns * static_cast<double>(simd::lanes * simd::per_word<stored>) / time / 1e9;
}

/// GB/s of one thread reading memory.
double read_rate() {
    std::vector<std::uint64_t> const words(std::size_t{16} << 20, 1);
    std::uint64_t sum = 0;
    double const time = least_seconds([&] { sum = std::accumulate(words.begin(), words.end(), sum); });
    benchmark::DoNotOptimize(sum);
    return static_cast<double>(words.size() * sizeof(std::uint64_t)) / time / 1e9;
}

quantized_activations per_token_int8(matrix const& x) {
    return activation_quantizer(any_grid(int_grid<8, zero::none>{})).quantize(x);
}
quantized_activations per_token_int8_affine(matrix const& x) {
    return activation_quantizer(any_grid(int_grid<8>{})).quantize(x);
}
quantized_activations per_tensor_e2m1(matrix const& x) {
    return activation_quantizer(any_grid(e2m1{}), {.scale = x.cwiseAbs().maxCoeff() / e2m1::highest()}).quantize(x);
}

quantized_activations mxfp4_inputs(matrix const& x) {
    return activation_quantizer(any_grid(e2m1{}), {.width = 32, .kind = scale_kind::e8m0}).quantize(x);
}
quantized_activations nvfp4_inputs(matrix const& x) {
    return activation_quantizer(any_grid(e2m1{}), {.width = 16, .kind = scale_kind::ue4m3}).quantize(x);
}
quantized_activations int8_of_128(matrix const& x) {
    return activation_quantizer(any_grid(int_grid<8, zero::none>{}), {.width = 128}).quantize(x);
}

template <class G, class P, auto Quantize, bool AgainstEigen> void product(benchmark::State& state) {
    matrix const dense = matrix::Random(state.range(0), state.range(1)); // (out, in)
    matrix const x = matrix::Random(state.range(2), state.range(1));     // (token, in)
    // As many copies as memory, rather than a cache, holds.
    packed_matrix const packed = quantizer<G, P>{}(dense).packed();
    std::vector<packed_matrix> const copies(x.rows() == 1 ? 12 : 1, packed);
    quantized_activations const codes = Quantize(x);
    matrix const numbers = dequantize(codes);
    matrix y(x.rows(), dense.rows()); // (token, out)
    std::size_t turn = 0;
    std::size_t other_turn = 0;
    double const operations = 2.0 * static_cast<double>(x.rows() * dense.size());
    double least = 1e9;
    compare(
        state, operations,
        [&] {
            least = std::min(least, seconds([&] { multiply(copies[turn++ % copies.size()], codes, y); }));
            benchmark::DoNotOptimize(y.data());
        },
        [&] {
            if constexpr (!AgainstEigen) {
                multiply(copies[other_turn++ % copies.size()], numbers, y);
            } else if (x.rows() == 1) {
                y.row(0).transpose().noalias() = dense * numbers.row(0).transpose();
            } else {
                y.noalias() = numbers * dense.transpose();
            }
            benchmark::DoNotOptimize(y.data());
        });
    double const bytes = static_cast<double>(packed.codes.size());
    double const floor = std::max(operations / dot_rate(), bytes / read_rate()) / 1e9;
    state.counters["floor"] = floor / least;
}

void shapes(benchmark::internal::Benchmark* b) {
    b->ArgsProduct({{4096}, {4096}, {1, 8, 128}})->UseManualTime()->MinTime(0.4);
}

} // namespace

BENCHMARK(product<e2m1, per_group<128>, per_tensor_e2m1, false>)->Name("integers/e2m1:g128/e2m1")->Apply(shapes);
BENCHMARK(product<e2m1, per_channel, per_tensor_e2m1, false>)->Name("integers/e2m1:channel/e2m1")->Apply(shapes);
BENCHMARK(product<e2m1, per_group<128>, per_token_int8, false>)->Name("integers/e2m1:g128/int8")->Apply(shapes);
BENCHMARK(product<e2m1, per_channel, per_token_int8, false>)->Name("integers/e2m1:channel/int8")->Apply(shapes);
BENCHMARK(product<int_grid<4>, per_group<128>, per_token_int8_affine, false>)
    ->Name("integers/int4:g128/int8 with zero points")
    ->Apply(shapes);
BENCHMARK(product<e2m1, per_group<32>, mxfp4_inputs, false>)->Name("integers/mxfp4/mxfp4")->Apply(shapes);
BENCHMARK(product<e2m1, per_group<16>, nvfp4_inputs, false>)->Name("integers/nvfp4/nvfp4")->Apply(shapes);
BENCHMARK(product<int_grid<4>, per_group<128>, int8_of_128, false>)
    ->Name("integers/int4:g128/int8 of 128")
    ->Apply(shapes);
BENCHMARK(product<int_grid<8>, per_channel, per_token_int8, false>)->Name("integers/int8:channel/int8")->Apply(shapes);
BENCHMARK(product<e2m1, per_group<128>, per_token_int8, true>)->Name("against_eigen/e2m1:g128/int8")->Apply(shapes);
BENCHMARK_MAIN();
