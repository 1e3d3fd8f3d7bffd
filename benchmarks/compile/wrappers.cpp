// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception

// Solvers around solvers and rounded inputs: rotated 4-bit weights and inputs, and ranges chosen by the output.
#include "detent/detent.hpp"

using namespace detent;

float sum_of_wrapped(matrix const& w, matrix const& x) {
    layer_inputs const known = layer_inputs::of(x);
    quantizer<int_grid<4>, per_channel, transformed<hadamard<128>, clipped<gptq<>>>, minmax_range,
              activations<int_grid<4>>> const rotated;
    quantizer<e2m1, per_channel, searched<gptq<>>> const chosen;
    return rotated(w, known)(x).sum() + (chosen(w, known) * float_vector(x.row(0).transpose())).sum();
}
