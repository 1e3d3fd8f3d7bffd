// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Prints the bits of what solvers and products make of one matrix, for each way of linking detent the same lines.
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "detent/grid/int_grid.hpp"
#include "detent/quantizer/product.hpp"
#include "detent/quantizer/quantizer.hpp"
#include "detent/solver/gptq.hpp"
#include "detent/solver/obq.hpp"
#include "detent/solver/rtn.hpp"

namespace {

using namespace detent;

/// FNV-1a.
std::uint64_t hash_of(void const* data, std::size_t bytes) {
    std::uint64_t hash = 14695981039346656037U;
    for (std::size_t i = 0; i < bytes; ++i) {
        hash = (hash ^ static_cast<unsigned char const*>(data)[i]) * 1099511628211U;
    }
    return hash;
}

void print(char const* what, void const* data, std::size_t bytes) {
    std::printf("%s %016llx\n", what, static_cast<unsigned long long>(hash_of(data, bytes)));
}

matrix numbers(index_t rows, index_t cols, std::uint32_t state) {
    matrix m(rows, cols);
    for (index_t i = 0; i < m.size(); ++i) {
        state = state * 1664525U + 1013904223U;
        m.data()[i] = static_cast<float>(state >> 8) / 8388608.0F - 1;
    }
    return m;
}

void print_all(char const* solver, packed_matrix const& w) {
    std::puts(solver);
    packed_view const view = w.view();
    print("codes", view.codes, static_cast<std::size_t>(view.row_bytes * view.shape.rows));
    print("scales", view.scales, static_cast<std::size_t>(view.shape.rows * view.tiles_per_row) * sizeof(float));
#if defined(__x86_64__) && !defined(__SSE3__) && !defined(__FAST_MATH__) // what detent::kernels has a unit of
    for (index_t const tokens : {1, 20}) {
        matrix const x = numbers(tokens, view.shape.cols, 3);
        matrix y(tokens, view.shape.rows);
        multiply(w, x, y);
        print("product", y.data(), static_cast<std::size_t>(y.size()) * sizeof(float));
    }
#endif
}

} // namespace

int main() {
    matrix const w = numbers(24, 64, 1);
    hessian const h = hessian::of(numbers(200, 64, 2));
    print_all("rtn", quantizer<int_grid<4>, per_group<32>, rtn>{}(w).packed());
    print_all("gptq", quantizer<int_grid<4>, per_group<32>, gptq<>>{}(w, h).packed());
    print_all("obq", quantizer<int_grid<4>, per_group<32>, obq>{}(w, h).packed());
}
