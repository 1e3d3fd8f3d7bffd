// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Prints codes, products and errors, which flags shall not change: this program is compiled with several.

#include <bit>
#include <cstdint>
#include <cstdio>

#include "detent/detent.hpp"

namespace {

using namespace detent;

/// A random matrix without a generator of the standard library: the same numbers with any flags. Many are ties: of
/// integers and halves.
matrix numbers(index_t rows, index_t cols, std::uint32_t seed) {
    matrix m(rows, cols);
    for (index_t i = 0; i < m.size(); ++i) {
        seed = seed * 1664525U + 1013904223U;
        auto const n = static_cast<float>(static_cast<std::int32_t>(seed >> 16) - 32768);
        m.data()[i] = i % 3 == 0 ? 0.5F * static_cast<float>(static_cast<int>(n) % 16) : n / 4096.0F;
    }
    return m;
}

std::uint64_t hash(void const* data, index_t bytes) {
    std::uint64_t h = 14695981039346656037U;
    for (index_t i = 0; i < bytes; ++i) {
        h = (h ^ static_cast<std::uint8_t const*>(data)[i]) * 1099511628211U;
    }
    return h;
}

template <class G, class P> void print(char const* name, quantized_matrix<G, P> const& w) {
    matrix const x = numbers(3, 96, 2);
    matrix y(3, 24);
    multiply(w.packed(), x, y);
    Eigen::VectorXf const one = w * x.row(0).transpose();
    matrix const decoded = dequantize(w.packed());
    std::printf("%s: codes %016llx, numbers %016llx, products %016llx %016llx\n", name,
                static_cast<unsigned long long>(hash(w.packed().codes.data(), w.packed().codes.size())),
                static_cast<unsigned long long>(hash(decoded.data(), decoded.size() * index_t{sizeof(float)})),
                static_cast<unsigned long long>(hash(y.data(), y.size() * index_t{sizeof(float)})),
                static_cast<unsigned long long>(hash(one.data(), one.size() * index_t{sizeof(float)})));
}

template <class F> void expect_error(char const* name, F const& f) {
    try {
        f();
    } catch (error const& e) {
        std::printf("%s: %s\n", name, e.what());
        return;
    }
    std::printf("%s: NOTHING WAS RAISED\n", name);
}

/// The number with these bits, of which the compiler knows nothing.
float from_bits(std::uint32_t const volatile& bits) { return std::bit_cast<float>(std::uint32_t{bits}); }

} // namespace

int main() {
    hessian const h = hessian::of(numbers(200, 96, 3));
    matrix const w = numbers(24, 96, 1);
    print("int4 gptq", quantizer<int_grid<4>, per_group<32>, gptq<>>{}(w, h));
    print("int3 rtn", quantizer<int_grid<3>, per_channel, rtn>{}(w));
    print("e2m1 rtn", quantizer<e2m1, per_group<32>, rtn>{}(w));
    print("nf4 rtn", quantizer<nf4, per_group<32>, rtn>{}(w));

    std::uint32_t const not_a_number = 0x7FC00000U;
    std::uint32_t const infinite = 0x7F800000U;
    quantizer<int_grid<4>, per_channel, rtn> const q;
    quantizer<int_grid<4>, per_group<32>, gptq<>> const by_hessian;
    for (std::uint32_t const bits : {not_a_number, infinite}) {
        matrix wrong = numbers(4, 40, 1);
        wrong(2, 3) = from_bits(bits);
        expect_error("a weight", [&] { q(wrong); });
        matrix x = numbers(50, 40, 2);
        x(7, 5) = from_bits(bits);
        expect_error("an input", [&] { by_hessian(numbers(4, 40, 1), hessian::of(x)); });
    }
}
