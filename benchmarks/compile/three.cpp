// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Three combinations of grid, granularity and solver, and their products.
#include "detent/detent.hpp"

using namespace detent;

float sum_of_three(matrix const& w, matrix const& x) {
    hessian const h = hessian::of(x);
    auto const groups = quantizer<int_grid<4>, per_group<128>, gptq<>>{}(w, h);
    auto const floats = quantizer<e2m1, per_group<32>, gptq<>>{}(w, h);
    auto const weak = quantizer<int_grid<3>, per_channel, owq<gptq<>>>{.solver = {.columns = 4}}(w, h);
    float_vector const input = x.row(0).transpose();
    return (groups * input + floats * input + weak * input).sum();
}
